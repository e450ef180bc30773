// Integer functions.
#pragma once

namespace metal {
SIM_FUNC int popcount(int x) { return __builtin_popcount((uint)x); }
SIM_FUNC uint popcount(uint x) { return __builtin_popcount(x); }
SIM_FUNC ulong popcount(ulong x) { return __builtin_popcountl(x); }
SIM_FUNC int clz(int x) { return x ? __builtin_clz((uint)x) : 32; }
SIM_FUNC uint clz(uint x) { return x ? __builtin_clz(x) : 32; }
SIM_FUNC ulong clz(ulong x) { return x ? __builtin_clzl(x) : 64; }
SIM_FUNC int ctz(int x) { return x ? __builtin_ctz((uint)x) : 32; }
SIM_FUNC uint ctz(uint x) { return x ? __builtin_ctz(x) : 32; }
SIM_FUNC ulong ctz(ulong x) { return x ? __builtin_ctzl(x) : 64; }
SIM_FUNC uint reverse_bits(uint x) { return __builtin_bitreverse32(x); }
SIM_FUNC uint rotate(uint x, uint n) { return __builtin_rotateleft32(x, n); }
SIM_FUNC uint extract_bits(uint x, uint offset, uint bits) {
  return bits == 0 ? 0 : (x >> offset) & (bits >= 32 ? ~0u : (1u << bits) - 1);
}
SIM_FUNC uint insert_bits(uint base, uint x, uint offset, uint bits) {
  uint mask = (bits >= 32 ? ~0u : (1u << bits) - 1) << offset;
  return (base & ~mask) | ((x << offset) & mask);
}
SIM_FUNC int mulhi(int a, int b) { return (int)(((long)a * b) >> 32); }
SIM_FUNC uint mulhi(uint a, uint b) { return (uint)(((ulong)a * b) >> 32); }
SIM_FUNC uint mul24(uint a, uint b) { return (a & 0xffffffu) * (b & 0xffffffu); }
}  // namespace metal

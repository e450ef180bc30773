// What the kernel asks of the runtime that it is linked to.
#pragma once

// `convergent`: the optimizer must not move a call into or out of a branch.
#define SIM_CONVERGENT __attribute__((convergent))
// The place of the call, as hidden last arguments.
#define SIM_SITE const char *__file = __builtin_FILE(), int __line = __builtin_LINE()
#define SIM_HERE __file, __line

// The first thing in threadgroup memory, so that an index before the first variable is noticed.
__attribute__((section("sim_threadgroup"), used, aligned(16))) static char __sim_guard_before[1024];

// Bytes of an element of an array, of however many dimensions.
template <class T>
struct __sim_element {
  static constexpr ulong size = sizeof(T);
};
template <class T, ulong N>
struct __sim_element<T[N]> : __sim_element<T> {};

extern "C" {
void __sim_threadgroup_barrier(uint flags, const char* file, int line) SIM_CONVERGENT;
void __sim_simdgroup_barrier(uint flags, const char* file, int line) SIM_CONVERGENT;
// Wait until all lanes of the scope (32 or 4) are here, then `combine` computes for all of them.
typedef void (*__sim_combine)(void** slots, uint active, int lanes);
void __sim_collective(int scope, void* slot, __sim_combine combine, const char* what, const char* file, int line)
    SIM_CONVERGENT;
uint __sim_lane(void);
void __sim_atomic_access(const void* p, uint size, int how);
void __sim_declare(const void* p, ulong size, ulong element, const char* name);
void __sim_complain(const char* what);
}

namespace metal {
enum class mem_flags : uint {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8,
};
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(uint(a) | uint(b)); }

SIM_CONVERGENT SIM_FUNC void threadgroup_barrier(mem_flags flags, SIM_SITE) {
  __sim_threadgroup_barrier(uint(flags), SIM_HERE);
}
SIM_CONVERGENT SIM_FUNC void simdgroup_barrier(mem_flags flags, SIM_SITE) {
  __sim_simdgroup_barrier(uint(flags), SIM_HERE);
}
}  // namespace metal

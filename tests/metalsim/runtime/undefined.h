// Undefined behaviour that the compiler can check for, and conversions that its support library would bring.
#pragma once
#include "report.h"

#define HANDLER(name, after, ...)                                            \
  extern "C" void __ubsan_handle_##name##_minimal() {                        \
    if (state.inside_runtime || !state.launch) return;                       \
    u64 at = (u64)__builtin_return_address(0) - 1;                           \
    if (Report* r = report(UNDEFINED_BEHAVIOUR, at)) SAY(r, __VA_ARGS__);    \
    after;                                                                   \
  }
// After these the launch cannot go on: memory behind the array would be overwritten, the processor would trap.
HANDLER(out_of_bounds, abandon(), "index outside of an array of fixed size")
HANDLER(divrem_overflow, abandon(), "integer division by zero, or overflow")
HANDLER(shift_out_of_bounds, , "shift by a negative number or by more than the width of the type")
HANDLER(float_cast_overflow, , "a floating-point number that does not fit the integer type")
HANDLER(type_mismatch, , "misaligned access")

// Said by functions of metal_stdlib while they run for several lanes.
extern "C" void __sim_complain(const char* what) {
  if (Report* r = report(UNDEFINED_BEHAVIOUR, 0, &self()->site)) SAY(r, "%s", what);
}

// float to bfloat, to the nearest, ties to even; a NaN stays one
extern "C" __bf16 __truncsfbf2(float f) {
  u32 u = __builtin_bit_cast(u32, f);
  bool nan = (u & 0x7fffffff) > 0x7f800000;
  u16 r = nan ? (u >> 16) | 0x40 : (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return __builtin_bit_cast(__bf16, r);
}
extern "C" __bf16 __truncdfbf2(double d) { return __truncsfbf2((float)d); }
extern "C" _Float16 __truncdfhf2(double d) { return (_Float16)(float)d; }

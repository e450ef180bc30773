// Mathematics. Scalars are overloads and no templates, as in Metal, so that a call with arguments of different types is
// ambiguous here too. Half and bfloat compute in float and are rounded once. The accuracy is that of the C library.
#pragma once

namespace metal {
#define SIM_UNARY(name, e)                                                            \
  SIM_FUNC float name(float x) { return e; }                                          \
  SIM_FUNC half name(half v) { float x = v; return (half)(e); }                       \
  SIM_FUNC bfloat name(bfloat v) { float x = v; return (bfloat)(e); }                 \
  template <class T, int N>                                                           \
  SIM_FUNC vec<T, N> name(vec<T, N> v) {                                              \
    vec<T, N> r;                                                                      \
    for (int i = 0; i < N; ++i) r[i] = name(v[i]);                                    \
    return r;                                                                         \
  }
#define SIM_BINARY_VECTOR(name)                                                       \
  template <class T, int N>                                                           \
  SIM_FUNC vec<T, N> name(vec<T, N> a, vec<T, N> b) {                                 \
    vec<T, N> r;                                                                      \
    for (int i = 0; i < N; ++i) r[i] = name(a[i], b[i]);                              \
    return r;                                                                         \
  }
#define SIM_BINARY(name, e)                                                           \
  SIM_FUNC float name(float x, float y) { return e; }                                 \
  SIM_FUNC half name(half a, half b) { float x = a, y = b; return (half)(e); }        \
  SIM_FUNC bfloat name(bfloat a, bfloat b) { float x = a, y = b; return (bfloat)(e); } \
  SIM_BINARY_VECTOR(name)
#define SIM_MATHEMATICS                                                               \
  SIM_UNARY(exp, __builtin_expf(x)) SIM_UNARY(exp2, __builtin_exp2f(x))               \
  SIM_UNARY(exp10, __builtin_powf(10.0f, x))                                          \
  SIM_UNARY(log, __builtin_logf(x)) SIM_UNARY(log2, __builtin_log2f(x))               \
  SIM_UNARY(log10, __builtin_log10f(x)) SIM_UNARY(sqrt, __builtin_sqrtf(x))           \
  SIM_UNARY(rsqrt, 1.0f / __builtin_sqrtf(x))                                         \
  SIM_UNARY(sin, __builtin_sinf(x)) SIM_UNARY(cos, __builtin_cosf(x))                 \
  SIM_UNARY(tan, __builtin_tanf(x)) SIM_UNARY(asin, __builtin_asinf(x))               \
  SIM_UNARY(acos, __builtin_acosf(x)) SIM_UNARY(atan, __builtin_atanf(x))             \
  SIM_UNARY(sinh, __builtin_sinhf(x)) SIM_UNARY(cosh, __builtin_coshf(x))             \
  SIM_UNARY(tanh, __builtin_tanhf(x)) SIM_UNARY(asinh, __builtin_asinhf(x))           \
  SIM_UNARY(acosh, __builtin_acoshf(x)) SIM_UNARY(atanh, __builtin_atanhf(x))         \
  SIM_UNARY(floor, __builtin_floorf(x)) SIM_UNARY(ceil, __builtin_ceilf(x))           \
  SIM_UNARY(trunc, __builtin_truncf(x)) SIM_UNARY(rint, __builtin_rintf(x))           \
  SIM_UNARY(round, __builtin_roundf(x)) SIM_UNARY(fabs, __builtin_fabsf(x))           \
  SIM_UNARY(fract, x - __builtin_floorf(x))                                           \
  SIM_UNARY(sign, x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f)                                \
  SIM_UNARY(saturate, x < 0 ? 0.0f : x > 1 ? 1.0f : x)                                \
  SIM_BINARY(pow, __builtin_powf(x, y)) SIM_BINARY(powr, __builtin_powf(x, y))        \
  SIM_BINARY(atan2, __builtin_atan2f(x, y)) SIM_BINARY(fmod, __builtin_fmodf(x, y))   \
  SIM_BINARY(fmin, __builtin_fminf(x, y)) SIM_BINARY(fmax, __builtin_fmaxf(x, y))     \
  SIM_BINARY(copysign, __builtin_copysignf(x, y)) SIM_BINARY(fdim, __builtin_fdimf(x, y)) \
  SIM_BINARY(divide, x / y) SIM_BINARY(step, y < x ? 0.0f : 1.0f)
inline namespace __plain {
SIM_MATHEMATICS
}
namespace fast {
SIM_MATHEMATICS
}
namespace precise {
SIM_MATHEMATICS
}

SIM_FUNC float sincos(float x, thread float& c) {
  c = __builtin_cosf(x);
  return __builtin_sinf(x);
}
SIM_FUNC float ldexp(float x, int k) { return __builtin_ldexpf(x, k); }
SIM_FUNC float frexp(float x, thread int& e) { return __builtin_frexpf(x, &e); }
SIM_FUNC float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
SIM_FUNC half fma(half a, half b, half c) { return (half)__builtin_fmaf(a, b, c); }
template <class T, int N>
SIM_FUNC vec<T, N> fma(vec<T, N> a, vec<T, N> b, vec<T, N> c) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = fma(a[i], b[i], c[i]);
  return r;
}

#define SIM_PREDICATES(T)                                             \
  SIM_FUNC bool isnan(T x) { return __builtin_isnan((float)x); }      \
  SIM_FUNC bool isinf(T x) { return __builtin_isinf((float)x); }      \
  SIM_FUNC bool isfinite(T x) { return __builtin_isfinite((float)x); } \
  SIM_FUNC bool signbit(T x) { return __builtin_signbit((float)x); }
SIM_PREDICATES(float)
SIM_PREDICATES(half)
SIM_PREDICATES(bfloat)

// Of a number and a NaN, both are the number.
#define SIM_MIN_MAX(T, nan)                                           \
  SIM_FUNC T min(T a, T b) { return (b < a || nan) ? b : a; }         \
  SIM_FUNC T max(T a, T b) { return (a < b || nan) ? b : a; }         \
  SIM_FUNC T min3(T a, T b, T c) { return min(min(a, b), c); }        \
  SIM_FUNC T max3(T a, T b, T c) { return max(max(a, b), c); }        \
  SIM_FUNC T clamp(T x, T lo, T hi) { return min(max(x, lo), hi); }   \
  SIM_FUNC T select(T a, T b, bool c) { return c ? b : a; }
SIM_MIN_MAX(char, false)
SIM_MIN_MAX(signed char, false)
SIM_MIN_MAX(uchar, false)
SIM_MIN_MAX(short, false)
SIM_MIN_MAX(ushort, false)
SIM_MIN_MAX(int, false)
SIM_MIN_MAX(uint, false)
SIM_MIN_MAX(long, false)
SIM_MIN_MAX(ulong, false)
SIM_MIN_MAX(float, a != a)
SIM_MIN_MAX(half, a != a)
SIM_MIN_MAX(bfloat, a != a)
SIM_BINARY_VECTOR(min)
SIM_BINARY_VECTOR(max)
SIM_FUNC float mix(float a, float b, float t) { return a + (b - a) * t; }
SIM_FUNC half mix(half a, half b, half t) { return a + (b - a) * t; }
SIM_FUNC bool select(bool a, bool b, bool c) { return c ? b : a; }
template <class T, int N>
SIM_FUNC vec<T, N> clamp(vec<T, N> a, vec<T, N> lo, vec<T, N> hi) {
  return min(max(a, lo), hi);
}
template <class T, class M, int N>
SIM_FUNC vec<T, N> select(vec<T, N> a, vec<T, N> b, vec<M, N> c) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = c[i] ? b[i] : a[i];
  return r;
}
template <class M, int N>
SIM_FUNC bool any(vec<M, N> c) {
  bool r = false;
  for (int i = 0; i < N; ++i) r |= !!c[i];
  return r;
}
template <class M, int N>
SIM_FUNC bool all(vec<M, N> c) {
  bool r = true;
  for (int i = 0; i < N; ++i) r &= !!c[i];
  return r;
}
SIM_FUNC bool any(bool b) { return b; }
SIM_FUNC bool all(bool b) { return b; }

SIM_FUNC float abs(float x) { return __builtin_fabsf(x); }
SIM_FUNC half abs(half x) { return (half)__builtin_fabsf(x); }
SIM_FUNC bfloat abs(bfloat x) { return (bfloat)__builtin_fabsf(x); }
SIM_FUNC int abs(int x) { return x < 0 ? -x : x; }
SIM_FUNC long abs(long x) { return x < 0 ? -x : x; }
SIM_FUNC short abs(short x) { return x < 0 ? -x : x; }
SIM_FUNC signed char abs(signed char x) { return x < 0 ? -x : x; }
SIM_FUNC uint abs(uint x) { return x; }
SIM_FUNC ulong abs(ulong x) { return x; }
SIM_FUNC ushort abs(ushort x) { return x; }
SIM_FUNC uchar abs(uchar x) { return x; }
template <class T, int N>
SIM_FUNC vec<T, N> abs(vec<T, N> v) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = abs(v[i]);
  return r;
}

template <class T, int N>
SIM_FUNC T dot(vec<T, N> a, vec<T, N> b) {
  T s = a[0] * b[0];
  for (int i = 1; i < N; ++i) s += a[i] * b[i];
  return s;
}
template <class T, int N>
SIM_FUNC T length_squared(vec<T, N> a) {
  return dot(a, a);
}
template <class T, int N>
SIM_FUNC T length(vec<T, N> a) {
  return sqrt(dot(a, a));
}
template <class T, int N>
SIM_FUNC vec<T, N> normalize(vec<T, N> a) {
  return a * rsqrt(dot(a, a));
}
}  // namespace metal

// Type traits and numeric limits.
#pragma once

namespace metal {
using ::half;
using ::int16_t;
using ::int32_t;
using ::int64_t;
using ::int8_t;
using ::size_t;
using ::uint16_t;
using ::uint32_t;
using ::uint64_t;
using ::uint8_t;

template <class T, T v>
struct integral_constant {
  static constexpr T value = v;
  using value_type = T;
  using type = integral_constant;
  constexpr operator T() const { return v; }
};
template <bool B>
using bool_constant = integral_constant<bool, B>;
using true_type = bool_constant<true>;
using false_type = bool_constant<false>;

template <bool B, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  using type = T;
};
template <bool B, class T = void>
using enable_if_t = typename enable_if<B, T>::type;
template <bool B, class T, class F>
struct conditional {
  using type = T;
};
template <class T, class F>
struct conditional<false, T, F> {
  using type = F;
};
template <bool B, class T, class F>
using conditional_t = typename conditional<B, T, F>::type;

template <class T, class U>
struct is_same : bool_constant<__is_same(T, U)> {};
template <class T, class U>
constexpr bool is_same_v = __is_same(T, U);
template <class A, class B>
struct is_convertible : bool_constant<__is_convertible(A, B)> {};
template <class A, class B>
constexpr bool is_convertible_v = __is_convertible(A, B);
template <class T>
struct remove_cv {
  using type = __remove_cv(T);
};
template <class T>
using remove_cv_t = __remove_cv(T);
template <class T>
using remove_reference_t = __remove_reference_t(T);
template <class T>
struct is_integral : bool_constant<__is_integral(T)> {};
template <class T>
constexpr bool is_integral_v = __is_integral(T);
template <class T>
constexpr bool is_floating_point_v = __is_same(__remove_cv(T), float) || __is_same(__remove_cv(T), half) ||
    __is_same(__remove_cv(T), bfloat);
template <class T>
struct is_floating_point : bool_constant<is_floating_point_v<T>> {};
template <class T>
constexpr bool is_signed_v = T(-1) < T(0);
template <class T>
constexpr bool is_unsigned_v = !is_signed_v<T>;
template <class T>
using make_unsigned_t = __make_unsigned(T);

template <class T>
struct __without_space {
  using type = T;
};
template <class T>
struct __without_space<device T> {
  using type = T;
};
template <class T>
struct __without_space<threadgroup T> {
  using type = T;
};
template <class T>
struct __without_space<constant T> {
  using type = T;
};
template <class T>
using remove_addrspace_t = typename __without_space<T>::type;

template <class T>
struct numeric_limits;
#define SIM_INTEGER_LIMITS(T, least, most)             \
  template <>                                          \
  struct numeric_limits<T> {                           \
    static constexpr T min() { return least; }         \
    static constexpr T lowest() { return least; }      \
    static constexpr T max() { return most; }          \
    static constexpr T infinity() { return 0; }        \
  };
SIM_INTEGER_LIMITS(bool, false, true)
SIM_INTEGER_LIMITS(char, -128, 127)
SIM_INTEGER_LIMITS(signed char, -128, 127)
SIM_INTEGER_LIMITS(uchar, 0, 255)
SIM_INTEGER_LIMITS(short, -32768, 32767)
SIM_INTEGER_LIMITS(ushort, 0, 65535)
SIM_INTEGER_LIMITS(int, INT_MIN, INT_MAX)
SIM_INTEGER_LIMITS(uint, 0, UINT_MAX)
SIM_INTEGER_LIMITS(long, (-0x7fffffffffffffffL - 1), 0x7fffffffffffffffL)
SIM_INTEGER_LIMITS(ulong, 0, 0xffffffffffffffffUL)
#define SIM_FLOAT_LIMITS(T, most, least, eps)                          \
  template <>                                                          \
  struct numeric_limits<T> {                                           \
    static constexpr T min() { return (T)least; }                      \
    static constexpr T lowest() { return (T)-most; }                   \
    static constexpr T max() { return (T)most; }                       \
    static constexpr T epsilon() { return (T)eps; }                    \
    static constexpr T infinity() { return (T)__builtin_inff(); }      \
    static constexpr T quiet_NaN() { return (T)__builtin_nanf(""); }   \
  };
SIM_FLOAT_LIMITS(float, 3.402823466e+38f, 1.175494351e-38f, 1.1920929e-07f)
SIM_FLOAT_LIMITS(half, 65504.0f, 6.103515625e-05f, 9.765625e-04f)
SIM_FLOAT_LIMITS(bfloat, 3.38953139e38f, 1.175494351e-38f, 0.0078125f)
}  // namespace metal

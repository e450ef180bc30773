// Stands before MLX's file of this name: complex numbers are structures, to be stored member by member.
#pragma once
struct complex64_t {
  float real, imag;
  complex64_t() = default;
  constexpr complex64_t(float r, float i = 0.0f) : real(r), imag(i) {}
};
template <typename T>
struct complex_t {
  T real, imag;
};

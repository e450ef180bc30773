// float4 and the like are clang's extended vectors, which have Metal's operators and swizzles. What they lack are
// constructors; `rewrite.py` turns `float4(a, b)` into `__sim_vector<float4>(a, b)`.
#pragma once

#define SIM_VECTORS(T, name)                             \
  typedef T name##2 __attribute__((ext_vector_type(2))); \
  typedef T name##3 __attribute__((ext_vector_type(3))); \
  typedef T name##4 __attribute__((ext_vector_type(4)));
SIM_VECTORS(bool, bool)
SIM_VECTORS(signed char, char)
SIM_VECTORS(uchar, uchar)
SIM_VECTORS(short, short)
SIM_VECTORS(ushort, ushort)
SIM_VECTORS(int, int)
SIM_VECTORS(uint, uint)
SIM_VECTORS(long, long)
SIM_VECTORS(ulong, ulong)
SIM_VECTORS(half, half)
SIM_VECTORS(bfloat, bfloat)
SIM_VECTORS(float, float)

#define SIM_PACKED_VECTORS(T)                                                   \
  typedef T packed_##T##2 __attribute__((ext_vector_type(2), aligned(sizeof(T)))); \
  typedef T packed_##T##4 __attribute__((ext_vector_type(4), aligned(sizeof(T))));
SIM_PACKED_VECTORS(half)
SIM_PACKED_VECTORS(float)
SIM_PACKED_VECTORS(bfloat)
SIM_PACKED_VECTORS(uchar)
SIM_PACKED_VECTORS(ushort)
SIM_PACKED_VECTORS(short)
SIM_PACKED_VECTORS(uint)
SIM_PACKED_VECTORS(int)

// Element type and length; a scalar has length 1.
template <class T>
struct __sim_shape {
  using Element = T;
  static constexpr int n = 1;
};
template <class T, int N>
struct __sim_shape<T __attribute__((ext_vector_type(N)))> {
  using Element = T;
  static constexpr int n = N;
};

template <class V, class A>
SIM_FUNC void __sim_append(V& v, int& i, A a) {
  using E = typename __sim_shape<V>::Element;
  if constexpr (__sim_shape<A>::n == 1) {
    v[i++] = static_cast<E>(a);
  } else {
    for (int k = 0; k < __sim_shape<A>::n; ++k) v[i++] = static_cast<E>(a[k]);
  }
}

template <class V>
SIM_FUNC V __sim_vector() {
  return V{};
}
template <class V, class A>
SIM_FUNC V __sim_vector(A a) {  // one scalar for all components, or a conversion
  static_assert(__sim_shape<A>::n == 1 || __sim_shape<A>::n == __sim_shape<V>::n,
                "vector constructor: wrong number of components");
  V v;
  int i = 0;
  if constexpr (__sim_shape<A>::n == 1) {
    while (i < __sim_shape<V>::n) __sim_append(v, i, a);
  } else {
    __sim_append(v, i, a);
  }
  return v;
}
template <class V, class A, class B, class... R>
SIM_FUNC V __sim_vector(A a, B b, R... rest) {
  static_assert(__sim_shape<A>::n + __sim_shape<B>::n + (__sim_shape<R>::n + ... + 0) == __sim_shape<V>::n,
                "vector constructor: wrong number of components");
  V v;
  int i = 0;
  __sim_append(v, i, a);
  __sim_append(v, i, b);
  (__sim_append(v, i, rest), ...);
  return v;
}

template <class To, class From>
SIM_FUNC To as_type(From f) {
  static_assert(sizeof(To) == sizeof(From), "as_type: the sizes differ");
  return __builtin_bit_cast(To, f);
}

namespace metal {
template <typename T, int N>
using vec = T __attribute__((ext_vector_type(N)));
}

// `*(device S*)p = *(threadgroup S*)q` for a struct S: C++ has no copy between address spaces, so `rewrite.py` makes it
// `__sim_copy((device S*)p, (threadgroup S*)q)`. The pointers keep their address spaces.
template <class P, class T>
struct __sim_same_space {
  using type = T*;
};
#define SIM_SAME_SPACE(space)               \
  template <class X, class T>               \
  struct __sim_same_space<space X*, T> {    \
    using type = space T*;                  \
  };
SIM_SAME_SPACE(device)
SIM_SAME_SPACE(const device)
SIM_SAME_SPACE(threadgroup)
SIM_SAME_SPACE(const threadgroup)
SIM_SAME_SPACE(constant)
template <class To, class From>
SIM_FUNC void __sim_copy(To to, From from) {
  static_assert(sizeof(*to) == sizeof(*from), "copy: the sizes differ");
  constexpr int n = sizeof(*from);
  if constexpr (n % 2) {
    for (int i = 0; i < n; ++i)
      ((typename __sim_same_space<To, uchar>::type)to)[i] =
          ((typename __sim_same_space<From, const uchar>::type)from)[i];
  } else {
    for (int i = 0; i < n / 2; ++i)
      ((typename __sim_same_space<To, ushort>::type)to)[i] =
          ((typename __sim_same_space<From, const ushort>::type)from)[i];
  }
}

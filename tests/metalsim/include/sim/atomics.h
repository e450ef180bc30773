// Atomic operations, with relaxed order as Metal has them. They are real ones, as several copies of a kernel may run at
// once on the same buffers. The checks are asked for by hand, since the compiler's do not know what is atomic.
#pragma once

namespace metal {
enum memory_order { memory_order_relaxed };
template <class T>
struct atomic {
  T value;
};
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<bool> atomic_bool;
typedef atomic<float> atomic_float;
typedef atomic<ulong> atomic_ulong;

template <class T>
struct __not_deduced {
  using type = T;
};
template <class T>
using __given = typename __not_deduced<T>::type;

enum __access { __for_load, __for_store, __for_update };
#define SIM_UNCHECKED inline __attribute__((__always_inline__, __nodebug__, no_sanitize("thread")))
template <class T>
SIM_UNCHECKED T* __enter(const volatile void* p, __access how) {
  __sim_atomic_access((const void*)p, sizeof(T), how);
  return (T*)p;
}
template <class T, class F>
SIM_UNCHECKED T __update(T* p, F f) {
  T before, after;
  __atomic_load(p, &before, __ATOMIC_RELAXED);
  do after = f(before);
  while (!__atomic_compare_exchange(p, &before, &after, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}

#define SIM_FETCH(space, name, e)                                                                            \
  template <class T>                                                                                         \
  SIM_UNCHECKED T atomic_##name##_explicit(volatile space atomic<T>* p, __given<T> v, memory_order) {        \
    return __update<T>(__enter<T>((const volatile void*)p, __for_update), [v](T old) -> T { return e; });    \
  }
#define SIM_ATOMICS(space)                                                                                   \
  template <class T>                                                                                         \
  SIM_UNCHECKED T atomic_load_explicit(const volatile space atomic<T>* p, memory_order) {                    \
    T v;                                                                                                     \
    __atomic_load(__enter<T>((const volatile void*)p, __for_load), &v, __ATOMIC_RELAXED);                    \
    return v;                                                                                                \
  }                                                                                                          \
  template <class T>                                                                                         \
  SIM_UNCHECKED void atomic_store_explicit(volatile space atomic<T>* p, __given<T> v, memory_order) {        \
    __atomic_store(__enter<T>((const volatile void*)p, __for_store), &v, __ATOMIC_RELAXED);                  \
  }                                                                                                          \
  template <class T>                                                                                         \
  SIM_UNCHECKED bool atomic_compare_exchange_weak_explicit(volatile space atomic<T>* p, thread T* expected,  \
      __given<T> v, memory_order, memory_order) {                                                            \
    return __atomic_compare_exchange(__enter<T>((const volatile void*)p, __for_update), expected, &v, true,  \
                                     __ATOMIC_RELAXED, __ATOMIC_RELAXED);                                    \
  }                                                                                                          \
  SIM_FETCH(space, exchange, v) SIM_FETCH(space, fetch_add, old + v) SIM_FETCH(space, fetch_sub, old - v)    \
  SIM_FETCH(space, fetch_min, v < old ? v : old) SIM_FETCH(space, fetch_max, old < v ? v : old)              \
  SIM_FETCH(space, fetch_and, old & v) SIM_FETCH(space, fetch_or, old | v) SIM_FETCH(space, fetch_xor, old ^ v)
SIM_ATOMICS(device)
SIM_ATOMICS(threadgroup)
}  // namespace metal

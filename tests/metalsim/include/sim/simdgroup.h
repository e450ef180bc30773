// Operations among the 32 lanes of a SIMD-group, or the 4 of a quad-group. Only for types that Metal takes: no 64-bit
// integers, no bool (MLX adds some).
#pragma once

namespace metal {
template <class T>
struct __slot {  // what a lane brings, and takes away
  T in, out;
  uint argument;
  T fill;
};

template <class T>
constexpr bool __in_simd = sizeof(typename __sim_shape<T>::Element) <= 4 && !is_same_v<T, bool> &&
    (is_integral_v<typename __sim_shape<T>::Element> || is_floating_point_v<typename __sim_shape<T>::Element>);
#define SIM_GROUP_FUNC                             \
  template <class T, class = enable_if_t<__in_simd<T>>> \
  SIM_CONVERGENT inline T

// In pairs, halves onto halves: the order in which float sums are added is not Metal's to promise.
template <class T, class F>
inline void __reduce(void** slots, uint active, int lanes, F combine) {
  T value[32];
  bool valid[32];
  for (int i = 0; i < lanes; ++i) {
    valid[i] = (active >> i) & 1;
    if (valid[i]) value[i] = ((__slot<T>*)slots[i])->in;
  }
  for (int half_way = lanes / 2; half_way; half_way /= 2)
    for (int i = 0; i < half_way; ++i)
      if (valid[i + half_way]) {
        value[i] = valid[i] ? combine(value[i], value[i + half_way]) : value[i + half_way];
        valid[i] = true;
      }
  for (int i = 0; i < lanes; ++i)
    if ((active >> i) & 1) ((__slot<T>*)slots[i])->out = value[0];
}
#define SIM_REDUCTION(name, scope, e)                                                  \
  SIM_GROUP_FUNC name(T x, SIM_SITE) {                                                 \
    __slot<T> s;                                                                       \
    s.in = x;                                                                          \
    __sim_collective(scope, &s, [](void** slots, uint active, int lanes) {             \
      __reduce<T>(slots, active, lanes, [](T a, T b) -> T { return e; });              \
    }, #name, SIM_HERE);                                                               \
    return s.out;                                                                      \
  }
#define SIM_REDUCTIONS(group, scope)                                                   \
  SIM_REDUCTION(group##_sum, scope, a + b) SIM_REDUCTION(group##_product, scope, a * b) \
  SIM_REDUCTION(group##_max, scope, metal::max(a, b)) SIM_REDUCTION(group##_min, scope, metal::min(a, b)) \
  SIM_REDUCTION(group##_and, scope, a & b) SIM_REDUCTION(group##_or, scope, a | b)     \
  SIM_REDUCTION(group##_xor, scope, a ^ b)
SIM_REDUCTIONS(simd, 32)
SIM_REDUCTIONS(quad, 4)

#define SIM_SCAN(name, scope, start, e, inclusive)                                     \
  SIM_GROUP_FUNC name(T x, SIM_SITE) {                                                 \
    __slot<T> s;                                                                       \
    s.in = x;                                                                          \
    __sim_collective(scope, &s, [](void** slots, uint active, int lanes) {             \
      T a = T(start);                                                                  \
      for (int i = 0; i < lanes; ++i) {                                                \
        if (!((active >> i) & 1)) continue;                                            \
        auto q = (__slot<T>*)slots[i];                                                 \
        T b = q->in, c = e;                                                            \
        q->out = inclusive ? c : a;                                                    \
        a = c;                                                                         \
      }                                                                                \
    }, #name, SIM_HERE);                                                               \
    return s.out;                                                                      \
  }
#define SIM_SCANS(group, scope)                                                        \
  SIM_SCAN(group##_prefix_inclusive_sum, scope, 0, a + b, true)                        \
  SIM_SCAN(group##_prefix_exclusive_sum, scope, 0, a + b, false)                       \
  SIM_SCAN(group##_prefix_inclusive_product, scope, 1, a * b, true)                    \
  SIM_SCAN(group##_prefix_exclusive_product, scope, 1, a * b, false)
SIM_SCANS(simd, 32)
SIM_SCANS(quad, 4)

// `from` is the lane to read, out of the own lane i, the argument d and the number of lanes n. Where `whole`, a lane
// outside of the group is an error; else the value is the lane's own, which Metal leaves undefined.
#define SIM_SHUFFLE(name, scope, from, whole)                                          \
  SIM_GROUP_FUNC name(T x, ushort argument, SIM_SITE) {                                \
    __slot<T> s;                                                                       \
    s.in = x;                                                                          \
    s.argument = argument;                                                             \
    __sim_collective(scope, &s, [](void** slots, uint active, int n) {                 \
      for (int i = 0; i < n; ++i) {                                                    \
        if (!((active >> i) & 1)) continue;                                            \
        auto q = (__slot<T>*)slots[i];                                                 \
        int d = q->argument, k = from;                                                 \
        (void)d;                                                                       \
        bool inside = k >= 0 && k < n, there = inside && ((active >> k) & 1);          \
        if (!inside && whole) __sim_complain(#name ": the lane to read from is outside of the group"); \
        if (inside && !there) __sim_complain(#name ": the lane to read from has returned");            \
        q->out = there ? ((__slot<T>*)slots[k])->in : q->in;                           \
      }                                                                                \
    }, #name, SIM_HERE);                                                               \
    return s.out;                                                                      \
  }
#define SIM_SHUFFLES(group, scope)                                                     \
  SIM_SHUFFLE(group##_shuffle, scope, d, true) SIM_SHUFFLE(group##_broadcast, scope, d, true) \
  SIM_SHUFFLE(group##_shuffle_up, scope, i - d, false) SIM_SHUFFLE(group##_shuffle_down, scope, i + d, false) \
  SIM_SHUFFLE(group##_shuffle_xor, scope, i ^ d, true)                                 \
  SIM_SHUFFLE(group##_shuffle_rotate_up, scope, (i - d) & (n - 1), true)               \
  SIM_SHUFFLE(group##_shuffle_rotate_down, scope, (i + d) & (n - 1), true)
SIM_SHUFFLES(simd, 32)
SIM_SHUFFLES(quad, 4)

#define SIM_SHUFFLE_AND_FILL(name, from)                                               \
  SIM_GROUP_FUNC name(T x, T fill, ushort argument, SIM_SITE) {                        \
    __slot<T> s;                                                                       \
    s.in = x;                                                                          \
    s.argument = argument;                                                             \
    s.fill = fill;                                                                     \
    __sim_collective(32, &s, [](void** slots, uint active, int n) {                    \
      if (active != ~0u) { __sim_complain(#name " with inactive lanes"); return; }     \
      for (int i = 0; i < n; ++i) {                                                    \
        auto q = (__slot<T>*)slots[i];                                                 \
        int d = q->argument, k = from;                                                 \
        bool inside = k >= 0 && k < n;                                                 \
        q->out = inside ? ((__slot<T>*)slots[k])->in : ((__slot<T>*)slots[k < 0 ? n + k : k - n])->fill; \
      }                                                                                \
    }, #name, SIM_HERE);                                                               \
    return s.out;                                                                      \
  }
SIM_SHUFFLE_AND_FILL(simd_shuffle_and_fill_up, i - d)
SIM_SHUFFLE_AND_FILL(simd_shuffle_and_fill_down, i + d)

SIM_GROUP_FUNC simd_broadcast_first(T x, SIM_SITE) {
  __slot<T> s;
  s.in = x;
  __sim_collective(32, &s, [](void** slots, uint active, int lanes) {
    T first = ((__slot<T>*)slots[__builtin_ctz(active)])->in;
    for (int i = 0; i < lanes; ++i)
      if ((active >> i) & 1) ((__slot<T>*)slots[i])->out = first;
  }, "simd_broadcast_first", SIM_HERE);
  return s.out;
}

struct simd_vote {
  typedef uint64_t vote_t;
  explicit constexpr simd_vote(vote_t v = 0, uint lanes = ~0u) : votes(v), active(lanes) {}
  operator vote_t() const { return votes; }
  bool any() const { return votes != 0; }
  bool all() const { return votes == active; }
  vote_t votes;
  uint active;
};
SIM_CONVERGENT inline simd_vote simd_ballot(bool vote, SIM_SITE) {
  __slot<uint> s;
  s.in = vote;
  __sim_collective(32, &s, [](void** slots, uint active, int lanes) {
    uint votes = 0;
    for (int i = 0; i < lanes; ++i)
      if ((active >> i) & 1) votes |= ((__slot<uint>*)slots[i])->in << i;
    for (int i = 0; i < lanes; ++i)
      if ((active >> i) & 1) {
        ((__slot<uint>*)slots[i])->out = votes;
        ((__slot<uint>*)slots[i])->argument = active;
      }
  }, "simd_ballot", SIM_HERE);
  return simd_vote(s.out, s.argument);
}
SIM_CONVERGENT SIM_FUNC bool simd_any(bool b, SIM_SITE) { return simd_ballot(b, SIM_HERE).any(); }
SIM_CONVERGENT SIM_FUNC bool simd_all(bool b, SIM_SITE) { return simd_ballot(b, SIM_HERE).all(); }
SIM_CONVERGENT SIM_FUNC bool simd_is_first(SIM_SITE) {
  return __sim_lane() == (uint)__builtin_ctzl(simd_ballot(true, SIM_HERE).votes);
}
}  // namespace metal

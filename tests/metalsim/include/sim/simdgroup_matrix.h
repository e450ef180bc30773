// 8 x 8 matrices spread over a SIMD-group, two elements per lane, in the layout that MLX's kernels rely on
// (steel/gemm/mma.h reads it off Apple's hardware). Products are summed in float, in the order of k.
#pragma once

namespace metal {
template <class T, int Columns, int Rows>
struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "only 8 x 8");
  vec<T, 2> elements;

  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T diagonal) {
    int row, column;
    place(__sim_lane(), row, column);
    for (int j = 0; j < 2; ++j) elements[j] = row == column + j ? diagonal : T(0);
  }
  thread vec<T, 2>& thread_elements() { return elements; }
  const thread vec<T, 2>& thread_elements() const { return elements; }
  // Where the first of the two elements of a lane is; the second is its right neighbour.
  static void place(int lane, thread int& row, thread int& column) {
    int quad = lane / 4;
    row = (quad & 4) + ((lane / 2) % 4);
    column = (quad & 2) * 2 + (lane % 2) * 2;
  }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;

template <class T, int Columns = 8, int Rows = 8>
SIM_FUNC simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, Columns, Rows> m;
  m.elements[0] = m.elements[1] = value;
  return m;
}

template <class T, class P>
SIM_FUNC void __load(thread simdgroup_matrix<T, 8, 8>& m, P from, ulong row_length, ulong2 origin, bool transposed) {
  int row, column;
  simdgroup_matrix<T, 8, 8>::place(__sim_lane(), row, column);
  for (int j = 0; j < 2; ++j)
    m.elements[j] = transposed ? from[(origin.y + column + j) * row_length + origin.x + row]
                               : from[(origin.y + row) * row_length + origin.x + column + j];
}
template <class T, class P>
SIM_FUNC void __store(simdgroup_matrix<T, 8, 8> m, P to, ulong row_length, ulong2 origin, bool transposed) {
  int row, column;
  simdgroup_matrix<T, 8, 8>::place(__sim_lane(), row, column);
  for (int j = 0; j < 2; ++j) {
    if (transposed) to[(origin.y + column + j) * row_length + origin.x + row] = m.elements[j];
    else to[(origin.y + row) * row_length + origin.x + column + j] = m.elements[j];
  }
}
// All lanes must take part, so each begins with a barrier that orders nothing.
#define SIM_LOAD_AND_STORE(space)                                                                          \
  template <class T>                                                                                       \
  SIM_CONVERGENT SIM_FUNC void simdgroup_load(thread simdgroup_matrix<T, 8, 8>& m, const space T* from,    \
      ulong row_length = 8, ulong2 origin = 0, bool transposed = false, SIM_SITE) {                        \
    __sim_simdgroup_barrier(0, SIM_HERE);                                                                  \
    __load(m, from, row_length, origin, transposed);                                                       \
  }                                                                                                        \
  template <class T>                                                                                       \
  SIM_CONVERGENT SIM_FUNC void simdgroup_store(simdgroup_matrix<T, 8, 8> m, space T* to,                   \
      ulong row_length = 8, ulong2 origin = 0, bool transposed = false, SIM_SITE) {                        \
    __sim_simdgroup_barrier(0, SIM_HERE);                                                                  \
    __store(m, to, row_length, origin, transposed);                                                        \
  }
SIM_LOAD_AND_STORE(device)
SIM_LOAD_AND_STORE(threadgroup)

template <class D, class A, class B, class C>
struct __product_slot {
  vec<A, 2> a;
  vec<B, 2> b;
  vec<C, 2> c;
  vec<D, 2> d;
};
template <class D, class A, class B, class C>
SIM_CONVERGENT inline void simdgroup_multiply_accumulate(thread simdgroup_matrix<D, 8, 8>& d,
    simdgroup_matrix<A, 8, 8> a, simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c, SIM_SITE) {
  using Slot = __product_slot<D, A, B, C>;
  Slot s = {a.elements, b.elements, c.elements, {}};
  __sim_collective(32, &s, [](void** slots, uint active, int) {
    if (active != ~0u) {
      __sim_complain("simdgroup_multiply_accumulate with inactive lanes");
      return;
    }
    float x[8][8], y[8][8], z[8][8];
    for (int lane = 0; lane < 32; ++lane) {
      auto q = (Slot*)slots[lane];
      int row, column;
      simdgroup_matrix<float, 8, 8>::place(lane, row, column);
      for (int j = 0; j < 2; ++j) {
        x[row][column + j] = (float)q->a[j];
        y[row][column + j] = (float)q->b[j];
        z[row][column + j] = (float)q->c[j];
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      auto q = (Slot*)slots[lane];
      int row, column;
      simdgroup_matrix<float, 8, 8>::place(lane, row, column);
      for (int j = 0; j < 2; ++j) {
        float sum = z[row][column + j];
        for (int k = 0; k < 8; ++k) sum += x[row][k] * y[k][column + j];
        q->d[j] = (D)sum;
      }
    }
  }, "simdgroup_multiply_accumulate", SIM_HERE);
  d.elements = s.d;
}
template <class D, class A, class B>
SIM_CONVERGENT SIM_FUNC void simdgroup_multiply(thread simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
    simdgroup_matrix<B, 8, 8> b, SIM_SITE) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D>(D(0)), SIM_HERE);
}
}  // namespace metal

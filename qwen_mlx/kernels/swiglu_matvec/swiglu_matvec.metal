// One simdgroup makes ROWS results of one expert: as many rows of gate and of up. T: of x, the scales and the result.
// K: values of x; N: results per expert. Groups of 64 values, 4 bits each, 8 to a word.

constexpr int ROWS = 4;
constexpr int WORDS = K / 8;
constexpr int GROUPS = K / 64;

const uint lane = thread_index_in_simdgroup;
const int first = int(threadgroup_position_in_grid.x * simdgroups_per_threadgroup + simdgroup_index_in_threadgroup) * ROWS;
const size_t chosen = threadgroup_position_in_grid.y;
const size_t base = size_t(experts[chosen]) * (2 * N);

float gate[ROWS], up[ROWS];
for (int r = 0; r < ROWS; r++) {
  gate[r] = 0.0f;
  up[r] = 0.0f;
}
for (int word = int(lane); word < WORDS; word += 32) {
  float values[8];
  float sum = 0.0f;
  for (int i = 0; i < 8; i++) {
    values[i] = float(x[word * 8 + i]);
    sum += values[i];
  }
  const int group = word / 8;
  for (int r = 0; r < ROWS; r++) {
    if (first + r < N) {
      const size_t gate_row = base + size_t(first + r);
      const size_t up_row = gate_row + N;
      const uint gate_codes = weight[gate_row * WORDS + word];
      const uint up_codes = weight[up_row * WORDS + word];
      float gate_dot = 0.0f, up_dot = 0.0f;
      for (int i = 0; i < 8; i++) {
        gate_dot += values[i] * float((gate_codes >> (4 * i)) & 15);
        up_dot += values[i] * float((up_codes >> (4 * i)) & 15);
      }
      gate[r] += float(scales[gate_row * GROUPS + group]) * gate_dot + float(biases[gate_row * GROUPS + group]) * sum;
      up[r] += float(scales[up_row * GROUPS + group]) * up_dot + float(biases[up_row * GROUPS + group]) * sum;
    }
  }
}
for (int r = 0; r < ROWS; r++) {
  const float g = float(static_cast<T>(simd_sum(gate[r])));
  const float u = float(static_cast<T>(simd_sum(up[r])));
  if (lane == 0 && first + r < N) {
    result[chosen * N + first + r] = static_cast<T>(g / (1.0f + metal::precise::exp(-g)) * u);
  }
}

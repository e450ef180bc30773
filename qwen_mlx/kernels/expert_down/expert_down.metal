// One simdgroup makes ROWS results: of each chosen expert the same rows, one expert after the other. T: of x, the
// scales, the weights of the experts and the result. K: values of x per expert; N: results; CHOSEN: experts.

constexpr int ROWS = 4;
constexpr int WORDS = K / 8;
constexpr int GROUPS = K / 64;

const uint lane = thread_index_in_simdgroup;
const int first = int(threadgroup_position_in_grid.x * simdgroups_per_threadgroup + simdgroup_index_in_threadgroup) * ROWS;

float total[ROWS];
for (int r = 0; r < ROWS; r++) {
  total[r] = 0.0f;
}
for (int c = 0; c < CHOSEN; c++) {
  const size_t base = size_t(experts[c]) * N;
  float dot[ROWS];
  for (int r = 0; r < ROWS; r++) {
    dot[r] = 0.0f;
  }
  for (int word = int(lane); word < WORDS; word += 32) {
    float values[8];
    float sum = 0.0f;
    for (int i = 0; i < 8; i++) {
      values[i] = float(x[c * K + word * 8 + i]);
      sum += values[i];
    }
    const int group = word / 8;
    for (int r = 0; r < ROWS; r++) {
      if (first + r < N) {
        const size_t row = base + size_t(first + r);
        const uint codes = weight[row * WORDS + word];
        float part = 0.0f;
        for (int i = 0; i < 8; i++) {
          part += values[i] * float((codes >> (4 * i)) & 15);
        }
        dot[r] += float(scales[row * GROUPS + group]) * part + float(biases[row * GROUPS + group]) * sum;
      }
    }
  }
  for (int r = 0; r < ROWS; r++) {
    total[r] += float(shares[c]) * float(static_cast<T>(simd_sum(dot[r])));
  }
}
for (int r = 0; r < ROWS; r++) {
  if (lane == 0 && first + r < N) {
    result[first + r] = static_cast<T>(total[r]);
  }
}

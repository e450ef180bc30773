// One threadgroup per row. T: type of x, y and the results; W: of the weight; SIZE: values per row; THREADS.
//
// MLX's rms_norm gives every simdgroup 128 values at a time, 4 neighbours to a lane, and has at most 32 of them. The
// same partial sums are made here by fewer simdgroups, one after the other, so that the sum is the same to the bit.

constexpr int CHUNK = 128;
constexpr int CHUNKS = (SIZE + CHUNK - 1) / CHUNK;
constexpr int PARTS = CHUNKS < 32 ? CHUNKS : 32;      // partial sums
constexpr int SIMDS = THREADS / 32;
constexpr int TURNS = (PARTS + SIMDS - 1) / SIMDS;    // partial sums that one simdgroup makes
constexpr int DEPTH = (CHUNKS + PARTS - 1) / PARTS;   // chunks in one partial sum

threadgroup float partial[32];

const uint lane = thread_index_in_simdgroup;
const uint simd = simdgroup_index_in_threadgroup;
const size_t row = size_t(threadgroup_position_in_grid.y) * SIZE;

if (simd == 0) {
  partial[lane] = 0.0f;
}
threadgroup_barrier(mem_flags::mem_threadgroup);

float held[TURNS * DEPTH * 4];
for (int turn = 0; turn < TURNS; turn++) {
  const int part = turn * SIMDS + int(simd);
  float squares = 0.0f;
  for (int depth = 0; depth < DEPTH; depth++) {
    const int at = (depth * PARTS + part) * CHUNK + int(lane) * 4;
    for (int i = 0; i < 4; i++) {
      float value = 0.0f;
      if (part < PARTS && at + i < SIZE) {
        const T rounded = static_cast<T>(float(x[row + at + i]) + float(y[row + at + i]));
        total[row + at + i] = rounded;
        value = float(rounded);
      }
      held[(turn * DEPTH + depth) * 4 + i] = value;
      squares += value * value;
    }
  }
  squares = simd_sum(squares);
  if (lane == 0 && part < PARTS) {
    partial[part] = squares;
  }
}
threadgroup_barrier(mem_flags::mem_threadgroup);

const float scale = metal::precise::rsqrt(simd_sum(partial[lane]) / float(SIZE) + eps);

for (int turn = 0; turn < TURNS; turn++) {
  const int part = turn * SIMDS + int(simd);
  for (int depth = 0; depth < DEPTH; depth++) {
    const int at = (depth * PARTS + part) * CHUNK + int(lane) * 4;
    for (int i = 0; i < 4; i++) {
      if (part < PARTS && at + i < SIZE) {
        // rounded to the type of the weight before the product, as rms_norm does
        const W scaled = static_cast<W>(held[(turn * DEPTH + depth) * 4 + i] * scale);
        normed[row + at + i] = static_cast<T>(float(weight[at + i]) * float(scaled));
      }
    }
  }
}

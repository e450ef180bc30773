// One simdgroup per block of logits. T: of the logits.

const uint lane = thread_index_in_simdgroup;
const int block = int(thread_position_in_grid.x / 32);
const int blocks = (vocab + BLOCK - 1) / BLOCK;
const size_t row = thread_position_in_grid.y;

uint best = 0;
for (int i = int(lane); i < BLOCK; i += 32) {
  const int at = block * BLOCK + i;
  if (at < vocab) {
    const uint key = ordered(float(logits[row * size_t(vocab) + at]) / temperature);
    best = best < key ? key : best;
  }
}
best = simd_max(best);
if (lane == 0 && block < blocks) {
  maxima[row * blocks + block] = best;
}

// One thread: one channel of one query row, over all blocks of keys, in their order.
int channel = int(thread_position_in_grid.x);
size_t row = size_t(thread_position_in_grid.y);
float top = -INFINITY;
for (int block = 0; block < blocks; block++) {
    top = max(top, stats[2 * (row * blocks + block)]);
}
float total = 0.0f;
float weight_sum = 0.0f;
for (int block = 0; block < blocks; block++) {
    size_t at = row * blocks + block;
    float keep = fast::exp2(stats[2 * at] - top);
    weight_sum += stats[2 * at + 1] * keep;
    total += totals[at * D + channel] * keep;
}
out[row * D + channel] = static_cast<T>(total / weight_sum);
if (channel == 0) {
    lse[row] = (top + log2(weight_sum)) * 0.69314718f;
}

// One SIMD-group: one block of keys of one KV head, for up to SLICE of the query rows that share it (a row is a query
// head and one of its L queries). LANES lanes decode a record together, so 32 / LANES keys are looked at in a step;
// what a lane has decoded serves all rows. A threadgroup leaves one sum of its blocks, for `merge` to put together.
constexpr int KPW = 32 / KEY_BITS;                      // codes in a word
constexpr int VPW = 32 / VALUE_BITS;
constexpr int KW = D * KEY_BITS / 32;                   // words of a record
constexpr int VW = D * VALUE_BITS / 32;
constexpr int WORDS = KW + VW + 2 * (D / GROUP);
constexpr int KL = (KW + LANES - 1) / LANES;            // words of a lane
constexpr int VL = (VW + LANES - 1) / LANES;
constexpr int STEP = 32 / LANES;                        // keys in a step

int block = int(thread_position_in_grid.x) / 32;
int slice = int(thread_position_in_grid.y);
int bh = int(thread_position_in_grid.z);                // batch and KV head
int lane = int(thread_index_in_simdgroup);
int key_of_step = lane / LANES;
int part_of_key = lane % LANES;
int batch = bh / kv_heads;
size_t capacity = size_t(records_shape[2]);

// The block: keys [start, stop) of one region, all regions cut into pieces of one size.
int oldest = n - L + 1 - window;                        // the first key that any query sees
oldest = max(oldest, int(first[batch]));
oldest = max(min(oldest, n - L), 0);
int piece = REGIONS == 1 ? (n - oldest + blocks - 1) / blocks : (n + blocks - 3) / (blocks - 2);
int region = 0;
int start = REGIONS == 1 ? oldest : 0;
int stop = REGIONS == 1 ? n : border_1;
int place = block;
if (REGIONS == 3) {
    for (int r = 1; r < 3; r++) {
        int pieces = (stop - start + piece - 1) / piece;
        if (region == r - 1 && place >= pieces) {
            place -= pieces;
            region = r;
            start = stop;
            stop = r == 1 ? border_2 : n;
        }
    }
}
start = start + place * piece;
stop = min(stop, start + piece);

float q_codes[SLICE][KL * KPW];                         // what is multiplied with codes
float q_sum[SLICE][KL];                                 // what is multiplied with the bias of each word's group
float total[SLICE][VL * VPW];                           // sum of weight * value
float top[SLICE];                                       // largest score so far
float weight_sum[SLICE];
int low[SLICE];                                         // the keys a row sees
int high[SLICE];
for (int r = 0; r < SLICE; r++) {
    int row = min(slice * SLICE + r, ROWS - 1);
    int query = REGIONS == 1 ? row % L : 0;
    size_t at = (size_t(bh) * (ROWS / L) + row / L) * (L * REGIONS) + (REGIONS == 1 ? query : region);
    high[r] = n - L + 1 + query;
    low[r] = min(max(int(first[batch]), high[r] - window), high[r] - 1);
    top[r] = -INFINITY;
    weight_sum[r] = 0.0f;
    for (int w = 0; w < KL; w++) {
        int word = part_of_key * KL + w;
        q_sum[r][w] = 0.0f;
        for (int i = 0; i < KPW; i++) {
            float x = word < KW ? float(q[at * D + min(word, KW - 1) * KPW + i]) * (scale * M_LOG2E_F) : 0.0f;
            q_codes[r][w * KPW + i] = x;
            q_sum[r][w] += x;
        }
    }
    for (int i = 0; i < VL * VPW; i++) {
        total[r][i] = 0.0f;
    }
}

for (int from = start; from < stop; from += STEP) {
    int key = from + key_of_step;
    bool inside = key < stop;
    const device uint* record = records + (size_t(bh) * capacity + size_t(min(key, stop - 1))) * WORDS;
    float score[SLICE];
    for (int r = 0; r < SLICE; r++) {
        score[r] = 0.0f;
    }
    for (int w = 0; w < KL; w++) {
        int word = min(part_of_key * KL + w, KW - 1);
        uint group = record[KW + VW + word * KPW / GROUP];
        float codes[KPW];
        decode<KEY_BITS>(record[word], codes);
        for (int r = 0; r < SLICE; r++) {
            float dot = 0.0f;
            for (int i = 0; i < KPW; i++) {
                dot += q_codes[r][w * KPW + i] * codes[i];
            }
            score[r] += scale_of(group) * dot + bias_of(group) * q_sum[r][w];
        }
    }
    for (int r = 0; r < SLICE; r++) {
        for (ushort x = 1; x < LANES; x *= 2) {
            score[r] += simd_shuffle_xor(score[r], x);
        }
    }
    float keep[SLICE];                                  // what is left of the sums so far
    float weight[SLICE];
    for (int r = 0; r < SLICE; r++) {
        bool seen = inside && key >= low[r] && key < high[r];
        float new_top = seen ? max(top[r], score[r]) : top[r];
        keep[r] = seen ? fast::exp2(top[r] - new_top) : 1.0f;
        weight[r] = seen ? fast::exp2(score[r] - new_top) : 0.0f;
        top[r] = new_top;
        weight_sum[r] = weight_sum[r] * keep[r] + weight[r];
    }
    for (int w = 0; w < VL; w++) {
        int word = min(part_of_key * VL + w, VW - 1);
        uint group = record[KW + VW + D / GROUP + word * VPW / GROUP];
        float values[VPW];
        decode<VALUE_BITS>(record[KW + word], values);
        for (int i = 0; i < VPW; i++) {
            float value = scale_of(group) * values[i] + bias_of(group);
            for (int r = 0; r < SLICE; r++) {
                total[r][w * VPW + i] = total[r][w * VPW + i] * keep[r] + weight[r] * value;
            }
        }
    }
}

threadgroup float sums[SIMD_GROUPS * D];
threadgroup float tops[SIMD_GROUPS];
threadgroup float weight_sums[SIMD_GROUPS];
int first_group = int(thread_position_in_threadgroup.y) * PARTS;
int group = first_group + int(thread_position_in_threadgroup.x) / 32;

// Lanes that looked at different keys of a step put their sums together.
for (int r = 0; r < SLICE; r++) {
    for (ushort x = LANES; x < 32; x *= 2) {
        float other_top = simd_shuffle_xor(top[r], x);
        float new_top = max(top[r], other_top);
        float mine = new_top == -INFINITY ? 0.0f : fast::exp2(top[r] - new_top);
        float other = new_top == -INFINITY ? 0.0f : fast::exp2(other_top - new_top);
        weight_sum[r] = weight_sum[r] * mine + simd_shuffle_xor(weight_sum[r], x) * other;
        for (int i = 0; i < VL * VPW; i++) {
            total[r][i] = total[r][i] * mine + simd_shuffle_xor(total[r][i], x) * other;
        }
        top[r] = new_top;
    }

    // The PARTS SIMD-groups of a threadgroup that looked at neighbouring blocks leave one sum for all of them.
    if (key_of_step == 0) {
        for (int w = 0; w < VL; w++) {
            int word = part_of_key * VL + w;
            for (int i = 0; i < VPW; i++) {
                if (word < VW) {
                    sums[group * D + word * VPW + i] = total[r][w * VPW + i];
                }
            }
        }
        if (part_of_key == 0) {
            tops[group] = top[r];
            weight_sums[group] = weight_sum[r];
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float all_top = -INFINITY;
    for (int p = 0; p < PARTS; p++) {
        all_top = max(all_top, tops[first_group + p]);
    }
    float share[PARTS];
    for (int p = 0; p < PARTS; p++) {
        share[p] = all_top == -INFINITY ? 0.0f : fast::exp2(tops[first_group + p] - all_top);
    }
    int row = slice * SLICE + r;
    if (row < ROWS) {
        size_t at = (size_t(bh) * ROWS + row) * (blocks / PARTS) + block / PARTS;
        for (int channel = int(thread_position_in_threadgroup.x); channel < D; channel += 32 * PARTS) {
            float sum = 0.0f;
            for (int p = 0; p < PARTS; p++) {
                sum += sums[(first_group + p) * D + channel] * share[p];
            }
            totals[at * D + channel] = sum;
        }
        if (thread_position_in_threadgroup.x == 0) {
            float sum = 0.0f;
            for (int p = 0; p < PARTS; p++) {
                sum += weight_sums[first_group + p] * share[p];
            }
            stats[2 * at] = all_top;
            stats[2 * at + 1] = sum;
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

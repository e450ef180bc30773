// One threadgroup per text. T: of the logits.
//
// The k likeliest tokens, and those tied with the last of them, stand in blocks whose maximum is at least the k-th
// largest maximum, and are themselves at least as large. Normally few tokens are; they are gathered, ranked by counting,
// filtered and drawn from. Where too many are (flat logits, or a peak of many neighbours), the bound is found by bisection.

threadgroup uint tops[MOST_BLOCKS];
threadgroup uint pool_keys[POOL];
threadgroup uint pool_ids[POOL];
threadgroup uint counts[SIMDS];
threadgroup uint bound[1];
threadgroup uint keys[MOST_KEPT];
threadgroup uint ids[MOST_KEPT];
threadgroup float mass[MOST_KEPT];
threadgroup float drawn[MOST_KEPT];

const uint thread_id = thread_index_in_threadgroup;
const uint lane = thread_index_in_simdgroup;
const uint simd = simdgroup_index_in_threadgroup;
const size_t row = threadgroup_position_in_grid.y;
const size_t start = row * size_t(vocab);
const int blocks = (vocab + BLOCK - 1) / BLOCK;

// ---- the k-th largest maximum
for (int b = int(thread_id); b < blocks; b += THREADS) {
  tops[b] = maxima[row * blocks + b];
}
threadgroup_barrier(mem_flags::mem_threadgroup);
for (int b = int(thread_id); b < blocks; b += THREADS) {
  int before = 0;
  for (int other = 0; other < blocks; other++) {
    before += tops[other] > tops[b] || (tops[other] == tops[b] && other < b) ? 1 : 0;
  }
  if (before == top_k - 1) {
    bound[0] = tops[b];
  }
}
threadgroup_barrier(mem_flags::mem_threadgroup);

// ---- how many tokens reach it; ids up to `last_id` count among those that equal it
uint least = bound[0];
uint last_id = 0xffffffffu;
uint count = 0;
uint base = 0;
uint found = 0;
// Bits of `least`, and then of `last_id`, still to be decided when too many were found; -1 when nothing is.
int key_bit = -1;
int id_bit = -1;
uint trial_key = least;
uint trial_id = last_id;
for (int round = 0; round < 80; round++) {
  found = 0;
  for (int b = int(simd); b < blocks; b += SIMDS) {
    if (tops[b] >= trial_key) {
      for (int i = int(lane); i < BLOCK; i += 32) {
        const int at = b * BLOCK + i;
        if (at < vocab) {
          const uint key = ordered(float(logits[start + at]) / temperature);
          found += key > trial_key || (key == trial_key && uint(at) <= trial_id) ? 1 : 0;
        }
      }
    }
  }
  const uint mine = simd_sum(found);
  if (lane == 0) {
    counts[simd] = mine;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  count = 0;
  base = 0;
  for (uint s = 0; s < uint(SIMDS); s++) {
    base += s < simd ? counts[s] : 0;
    count += counts[s];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  if (key_bit < 0 && id_bit < 0) {
    if (count <= uint(POOL) || round > 0) {
      break;
    }
    key_bit = 31;  // the k-th largest score is the largest one that k tokens reach: bit by bit from the top
    least = 0;
  } else if (key_bit >= 0) {
    least = count >= uint(top_k) ? trial_key : least;
    key_bit -= 1;
    id_bit = key_bit < 0 ? 23 : -1;
    last_id = key_bit < 0 ? 0 : last_id;
  } else {
    last_id = count <= uint(room) ? trial_id : last_id;
    id_bit -= 1;
  }
  trial_key = key_bit >= 0 ? least | (1u << key_bit) : least;
  trial_id = id_bit >= 0 ? last_id | (1u << id_bit) : last_id;
}

// ---- gather them: every lane knows how many stand before its own
const uint before_lane = base + simd_prefix_exclusive_sum(found);
uint slot = before_lane;
for (int b = int(simd); b < blocks; b += SIMDS) {
  if (tops[b] >= least) {
    for (int i = int(lane); i < BLOCK; i += 32) {
      const int at = b * BLOCK + i;
      if (at < vocab) {
        const uint key = ordered(float(logits[start + at]) / temperature);
        if (key > least || (key == least && uint(at) <= last_id)) {
          pool_keys[slot] = key;
          pool_ids[slot] = uint(at);
          slot += 1;
        }
      }
    }
  }
}
for (uint i = thread_id; i < uint(MOST_KEPT); i += uint(THREADS)) {
  keys[i] = 0;
  ids[i] = 0;
}
threadgroup_barrier(mem_flags::mem_threadgroup);

// ---- in order: the likeliest first, the lower id first among equals
for (uint i = thread_id; i < count; i += uint(THREADS)) {
  uint rank = 0;
  for (uint j = 0; j < count; j++) {
    const bool before = pool_keys[j] > pool_keys[i] || (pool_keys[j] == pool_keys[i] && pool_ids[j] < pool_ids[i]);
    rank += before ? 1 : 0;
  }
  if (rank < uint(room)) {
    keys[rank] = pool_keys[i];
    ids[rank] = pool_ids[i];
  }
}
threadgroup_barrier(mem_flags::mem_threadgroup);

// ---- filters and draw, one candidate per thread
const uint kth = keys[top_k - 1];
const float best = score_of(keys[0]);
const bool candidate = thread_id < uint(room) && thread_id < count;
const uint key = candidate ? keys[thread_id] : 0;
const bool likely = candidate && key >= kth;
const float score = likely ? score_of(key) : -INFINITY;
if (thread_id < uint(MOST_KEPT)) {
  mass[thread_id] = likely ? metal::precise::exp(score - best) : 0.0f;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
if (thread_id < uint(MOST_KEPT)) {
  float sum = 0.0f, tail = 0.0f;  // from the least likely up
  for (int i = MOST_KEPT - 1; i >= 0; i--) {
    sum += mass[i];
    tail = i == int(thread_id) ? sum : tail;
  }
  const bool kept = likely && tail > outside * sum && score >= best + gap;
  const uint word = uint(row) * uint(room) + thread_id;
  const uint words = threadgroups_per_grid.y * uint(room);
  drawn[thread_id] = kept ? score + gumbel(random_bits(random_key[0], random_key[1], word, words)) : -INFINITY;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
if (simd == 0) {
  float top = drawn[0];  // the likeliest token, when rounding has left none
  uint place = 0;
  for (uint i = lane; i < uint(MOST_KEPT); i += 32) {
    const bool wins = drawn[i] > top;
    place = wins ? i : place;
    top = wins ? drawn[i] : top;
  }
  const float highest = simd_max(top);
  place = simd_min(top == highest ? place : uint(MOST_KEPT));
  if (lane == 0) {
    token[row] = ids[place];
  }
}

// One threadgroup per token, 4 experts per thread. T: of the logits and the weights; EXPERTS; K; NORMALISE.
//
// Probabilities are made by the steps of MLX's softmax, in its order, so that experts which tie there tie here. Among
// equals the expert of the higher index is taken first: what is left of a stable ascending sort when its last K are cut
// off. A probability is never negative, so its bits compare like the number.

constexpr int SIMDS = (EXPERTS + 127) / 128;
constexpr int FOUND = SIMDS * K;                 // candidates of all simdgroups
constexpr int SHARE = (FOUND + 31) / 32;         // of which each lane looks at this many

threadgroup float partial[32];
threadgroup uint keys_of[FOUND];
threadgroup uint places_of[FOUND];

const uint lane = thread_index_in_simdgroup;
const uint simd = simdgroup_index_in_threadgroup;
const uint first = thread_index_in_threadgroup * 4;
const size_t token = threadgroup_position_in_grid.y;

float p[4];
for (uint i = 0; i < 4; i++) {
  p[i] = first + i < uint(EXPERTS) ? float(logits[token * EXPERTS + first + i]) : -INFINITY;
}

float highest = -3.402823466e+38f;
for (int i = 0; i < 4; i++) {
  highest = highest < p[i] ? p[i] : highest;
}
highest = simd_max(highest);
if (lane == 0) {
  partial[simd] = highest;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
for (int i = 0; i < SIMDS; i++) {
  highest = highest < partial[i] ? partial[i] : highest;
}
threadgroup_barrier(mem_flags::mem_threadgroup);

float sum = 0.0f;
for (int i = 0; i < 4; i++) {
  p[i] = metal::fast::exp(p[i] - highest);
  sum += p[i];
}
sum = simd_sum(sum);
if (lane == 0) {
  partial[simd] = sum;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
const float scale = 1.0f / simd_sum(lane < uint(SIMDS) ? partial[lane] : 0.0f);

uint key[4];  // 0: nothing here, or taken already
for (uint i = 0; i < 4; i++) {
  p[i] *= scale;
  const uint bits = metal::isnan(p[i]) ? 0x7fffffffu : as_type<uint>(p[i]);
  key[i] = first + i < uint(EXPERTS) ? bits + 1 : 0;
}
for (int rank = 0; rank < K; rank++) {
  uint best = 0, place = 0;
  for (uint i = 0; i < 4; i++) {
    place = key[i] >= best ? first + i : place;
    best = key[i] >= best ? key[i] : best;
  }
  const uint top = simd_max(best);
  const uint where = simd_max(best == top ? place : 0u);
  if (lane == 0) {
    keys_of[int(simd) * K + rank] = top;
    places_of[int(simd) * K + rank] = where;
  }
  for (uint i = 0; i < 4; i++) {
    key[i] = first + i == where ? 0 : key[i];
  }
}
threadgroup_barrier(mem_flags::mem_threadgroup);

if (simd == 0) {
  uint candidate[SHARE], expert[SHARE];
  for (int i = 0; i < SHARE; i++) {
    const int at = i * 32 + int(lane);
    candidate[i] = at < FOUND ? keys_of[at] : 0;
    expert[i] = at < FOUND ? places_of[at] : 0;
  }
  float chosen[K];  // the same in every lane
  for (int rank = 0; rank < K; rank++) {
    uint best = 0, place = 0;
    for (int i = 0; i < SHARE; i++) {
      const bool wins = candidate[i] > best || (candidate[i] == best && expert[i] >= place);
      place = wins ? expert[i] : place;
      best = wins ? candidate[i] : best;
    }
    const uint top = simd_max(best);
    const uint where = simd_max(best == top ? place : 0u);
    for (int i = 0; i < SHARE; i++) {
      candidate[i] = expert[i] == where ? 0 : candidate[i];
    }
    chosen[K - 1 - rank] = as_type<float>(top - 1);
    if (lane == 0) {
      experts[token * K + K - 1 - rank] = where;
    }
  }
  float total = 0.0f;
  for (int i = 0; i < K; i++) {
    total = chosen[i] + total;
  }
  if (lane == 0) {
    for (int i = 0; i < K; i++) {
      weights[token * K + i] = static_cast<T>(NORMALISE ? chosen[i] / total : chosen[i]);
    }
  }
}

// What both launches of the sampler agree on.

constant constexpr int BLOCK = 512;      // logits that share a maximum
constant constexpr int MOST_BLOCKS = 1024;
constant constexpr int POOL = 512;       // candidates that fit into threadgroup memory
constant constexpr int MOST_KEPT = 128;  // of which this many may be drawn from
constant constexpr int THREADS = 256;
constant constexpr int SIMDS = THREADS / 32;

// A score as a number that compares like it; both zeros are equal, and what is not a number is the least.
inline uint ordered(float score) {
  const float plain = metal::isnan(score) ? -INFINITY : score == 0.0f ? 0.0f : score;
  const uint bits = as_type<uint>(plain);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

inline float score_of(uint key) {
  return as_type<float>((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

// Threefry-2x32 with 20 rounds (Salmon et al., 2011), as MLX's random numbers are made.
inline uint2 threefry(uint k0, uint k1, uint x, uint y) {
  const uint keys[3] = {k0, k1, k0 ^ k1 ^ 0x1BD11BDAu};
  const uint turns[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  x += keys[0];
  y += keys[1];
  for (int i = 0; i < 5; i++) {
    for (int j = 0; j < 4; j++) {
      const uint r = turns[i % 2][j];
      x += y;
      y = (y << r) | (y >> (32 - r));
      y ^= x;
    }
    x += keys[(i + 1) % 3];
    y += keys[(i + 2) % 3] + uint(i) + 1;
  }
  uint2 words;
  words.x = x;
  words.y = y;
  return words;
}

// Word `i` of `n`, as MLX lays them out: counter i with counter i + half a step further on.
inline uint random_bits(uint k0, uint k1, uint i, uint n) {
  const uint half_up = (n + 1) / 2;
  const uint low = i < half_up ? i : i - half_up;
  const uint high = low + half_up < n ? low + half_up : 0;
  const uint2 words = threefry(k0, k1, low, high);
  return i < half_up ? words.x : words.y;
}

inline float gumbel(uint bits) {
  const float uniform = metal::min(float(bits) / 4294967296.0f, 0.99999994f);
  return -metal::precise::log(-metal::precise::log(uniform));
}

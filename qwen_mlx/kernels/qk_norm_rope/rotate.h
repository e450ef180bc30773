// One SIMD-group: one head of one token, from a row of `x` (channels `step` apart) into threadgroup memory, float32:
// normed, where there is a weight, then its first DIMS channels times `gain`, rotated by `position`, all times `scale`.
// Channels i and i + DIMS / 2 turn together, by position / periods[i].
template <int D, int DIMS, bool NORM, typename X, typename W>
inline void rotate(
    const device X* x, int64_t step, const device W* weight, float eps, const device float* periods, float position,
    float gain, float scale, int lane, threadgroup float* row) {
    float factor = scale;
    if (NORM) {
        float squares = 0.0f;
        for (int i = lane; i < D; i += 32) {
            float v = float(x[i * step]);
            squares += v * v;
        }
        factor *= metal::precise::rsqrt(simd_sum(squares) / D + eps);
    }
    for (int i = lane; i < DIMS / 2; i += 32) {
        float a = float(x[i * step]) * factor * gain;
        float b = float(x[(i + DIMS / 2) * step]) * factor * gain;
        if (NORM) {
            a *= float(weight[i]);
            b *= float(weight[i + DIMS / 2]);
        }
        float angle = position * (1.0f / periods[i]);
        float c = metal::precise::cos(angle);
        float s = metal::precise::sin(angle);
        row[i] = a * c - b * s;
        row[i + DIMS / 2] = a * s + b * c;
    }
    for (int i = DIMS + lane; i < D; i += 32) {
        row[i] = float(x[i * step]) * factor * (NORM ? float(weight[i]) : 1.0f);
    }
}

inline float rounded_down(float x) {                    // to bfloat16, but kept as float
    uint bits = as_type<uint>(x);
    return as_type<float>((x < 0.0f ? bits + 0xffffu : bits) & 0xffff0000u);
}

inline float rounded_up(float x) {                      // the same, of a number that is not negative
    return as_type<float>((as_type<uint>(x) + 0xffffu) & 0xffff0000u);
}

// The codes of a row and the words of its groups. Every lane finds scale and bias of the groups it needs by itself.
template <int D, int BITS, int GROUP>
inline void pack(const threadgroup float* row, device uint* codes, device uint* groups, int lane) {
    constexpr int PER_WORD = 32 / BITS;
    constexpr float LEVELS = float((1 << BITS) - 1);
    for (int word = lane; word < D / PER_WORD; word += 32) {
        int group = word * PER_WORD / GROUP;
        float least = row[group * GROUP];
        float most = least;
        for (int i = 1; i < GROUP; i++) {
            least = min(least, row[group * GROUP + i]);
            most = max(most, row[group * GROUP + i]);
        }
        float bias = rounded_down(least);
        float scale = rounded_up((most - bias) / LEVELS);
        uint packed = 0;
        for (int i = 0; i < PER_WORD; i++) {
            float steps = scale > 0.0f ? (row[word * PER_WORD + i] - bias) / scale : 0.0f;
            packed |= uint(clamp(rint(steps), 0.0f, LEVELS)) << (BITS * i);
        }
        codes[word] = packed;
        if (word * PER_WORD % GROUP == 0) {
            groups[group] = (as_type<uint>(scale) >> 16) | as_type<uint>(bias);
        }
    }
}

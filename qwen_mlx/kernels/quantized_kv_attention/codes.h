// Words of a record, as float. A word holds 32 / BITS codes from its low end; the word of a group holds its scale in
// the low half and its bias in the high half, both bfloat16.

template <int BITS>
inline void decode(uint word, thread float* codes) {
    for (int i = 0; i < 32 / BITS; i++) {
        codes[i] = float((word >> (BITS * i)) & ((1u << BITS) - 1u));
    }
}

inline float scale_of(uint group) {
    return as_type<float>(group << 16);
}

inline float bias_of(uint group) {
    return as_type<float>(group & 0xffff0000u);
}

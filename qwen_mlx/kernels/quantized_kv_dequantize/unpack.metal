// One thread: eight neighbouring values of a key, and of a value.
constexpr int KW = D * KEY_BITS / 32;                   // words of a record
constexpr int VW = D * VALUE_BITS / 32;
constexpr int WORDS = KW + VW + 2 * (D / GROUP);

int at = int(thread_position_in_grid.x) * 8;            // the first of the eight channels
int token = int(thread_position_in_grid.y);
int bh = int(thread_position_in_grid.z);                // batch and head, of the heads asked for
if (token < tokens) {
    size_t head = size_t(bh / heads) * size_t(records_shape[1]) + size_t(first_head + bh % heads);
    const device uint* record = records + (head * size_t(records_shape[2]) + size_t(first_token + token)) * WORDS;
    size_t out = (size_t(bh) * tokens + token) * D + at;
    uint key_group = record[KW + VW + at / GROUP];
    uint value_group = record[KW + VW + D / GROUP + at / GROUP];
    for (int w = 0; w < KEY_BITS / 4; w++) {
        float codes[32 / KEY_BITS];
        decode<KEY_BITS>(record[at * KEY_BITS / 32 + w], codes);
        for (int i = 0; i < 32 / KEY_BITS; i++) {
            keys[out + w * (32 / KEY_BITS) + i] = static_cast<T>(scale_of(key_group) * codes[i] + bias_of(key_group));
        }
    }
    for (int w = 0; w < VALUE_BITS / 4; w++) {
        float codes[32 / VALUE_BITS];
        decode<VALUE_BITS>(record[KW + at * VALUE_BITS / 32 + w], codes);
        for (int i = 0; i < 32 / VALUE_BITS; i++) {
            values[out + w * (32 / VALUE_BITS) + i] =
                static_cast<T>(scale_of(value_group) * codes[i] + bias_of(value_group));
        }
    }
}

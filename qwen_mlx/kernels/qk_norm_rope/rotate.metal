// One SIMD-group: one head of one token, of q (turned to COPIES positions) or of k.
int lane = int(thread_index_in_simdgroup);
int head = int(thread_position_in_grid.y);              // first those of q, copy after copy, then those of k
int length = q_shape[1];
int q_heads = q_shape[2];
int k_heads = k_shape[2];
int batch = int(thread_position_in_grid.z) / length;
int token = int(thread_position_in_grid.z) % length;
threadgroup float rows[SIMD_GROUPS * D];
threadgroup float* row = rows + simdgroup_index_in_threadgroup * D;
if (head < q_heads * COPIES) {
    int copy = head / q_heads;
    head = head % q_heads;
    float position = float(q_offset[(q_offset_shape[0] == 1 ? 0 : batch) * COPIES + copy] + token);
    rotate<D, DIMS, NORM>(
        q + batch * q_strides[0] + token * q_strides[1] + head * q_strides[2], q_strides[3], q_weight, eps, periods,
        position, q_gain, 1.0f, lane, row);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    size_t at = ((size_t(batch) * q_heads + head) * (COPIES * length) + copy * length + token) * D;
    for (int i = lane; i < D; i += 32) {
        q_out[at + i] = static_cast<T>(row[i]);
    }
} else if (head < q_heads * COPIES + k_heads) {
    head -= q_heads * COPIES;
    float position = float(k_offset[k_offset_shape[0] == 1 ? 0 : batch] + token);
    rotate<D, DIMS, NORM>(
        k + batch * k_strides[0] + token * k_strides[1] + head * k_strides[2], k_strides[3], k_weight, eps, periods,
        position, 1.0f, k_scale, lane, row);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    size_t at = ((size_t(batch) * k_heads + head) * length + token) * D;
    for (int i = lane; i < D; i += 32) {
        k_out[at + i] = static_cast<T>(row[i]);
    }
}

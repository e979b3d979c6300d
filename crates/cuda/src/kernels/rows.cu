// Matrices [M, C]: adding a vector to every row, and sums of columns.

template <bool WIDE, int V, class T> DEVICE void bias_add(T* y, const float* bias, const T* sum, long long M, int C) {
    const int units = C / V;
    for (long long i = thread_index(); i < M * units; i += thread_count()) {
        const int c = (int)(i - quotient(i, units) * units) * V;
        float v[V], w[V];
        load_run<WIDE>(y + i * V, v);
        load_run<WIDE>(bias + c, w);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] += w[k];
        if (sum) {
            load_run<WIDE>(sum + i * V, w);
#pragma unroll
            for (int k = 0; k < V; k++) v[k] += w[k];
        }
        store_run<WIDE>(y + i * V, v);
    }
}

// y [M, C] += bias [C], + sum [M, C] if there is one, in place
#define BIAS_ADD(T, t) \
    ROOMY_KERNEL bias_add_##t(T* y, const float* bias, const T* sum, long long M, int C) { \
        if (C % Lanes<T>::n == 0 && aligned(y, bias, sum)) bias_add<true, Lanes<T>::n>(y, bias, sum, M, C); \
        else bias_add<false, 1>(y, bias, sum, M, C); \
    }
FOR_EACH_TYPE(BIAS_ADD)

template <bool WIDE, int V, class T> DEVICE void bias_add_images(const T* x, const float* e, T* y, long long B, long long P, int C) {
    const int units = C / V;
    for (long long i = thread_index(); i < B * P * units; i += thread_count()) {
        const long long row = quotient(i, units), b = quotient(row, P);
        const int c = (int)(i - row * units) * V;
        float v[V], w[V];
        load_run<WIDE>(x + i * V, v);
        load_run<WIDE>(e + b * C + c, w);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] += w[k];
        store_run<WIDE>(y + i * V, v);
    }
}

// y [B, P, C] = x [B, P, C] + e [B, C] on every pixel
#define BIAS_ADD_IMAGES(T, t) \
    KERNEL bias_add_images_##t(const T* x, const float* e, T* y, long long B, long long P, int C) { \
        if (C % Lanes<T>::n == 0 && aligned(x, e, y)) bias_add_images<true, Lanes<T>::n>(x, e, y, B, P, C); \
        else bias_add_images<false, 1>(x, e, y, B, P, C); \
    }
FOR_EACH_TYPE(BIAS_ADD_IMAGES)

// Sums rows first .. last of x (row length C) over one tile of channels: s.units units from channel c0, left in sh as [V][units].
template <bool WIDE, int V, class T> DEVICE void sum_rows(const T* x, long long first, long long last, int C, int c0, const Span& s, float* sh) {
    if (s.row < s.rows) {
        const int c = c0 + s.unit * V;
        float sum[V] = {}, v[V];
#pragma unroll 4
        for (long long r = first + s.row; r < last; r += s.rows) {
            load_run<WIDE>(x + r * C + c, v);
#pragma unroll
            for (int k = 0; k < V; k++) sum[k] += v[k];
        }
#pragma unroll
        for (int k = 0; k < V; k++) sh[(s.row * V + k) * s.units + s.unit] = sum[k];
    }
    fold_rows(sh, s.rows, V * s.units);
}

template <bool WIDE, int V, class T> DEVICE void column_sum_partial(const T* dy, float* partial, long long M, int C, int chunks, float* sh) {
    const long long length = (M + chunks - 1) / chunks, first = min(blockIdx.x * length, M), last = min(first + length, M);
    for (int u0 = 0; u0 < C / V; u0 += 256) {
        const Span s = span(C / V - u0);
        sum_rows<WIDE, V>(dy, first, last, C, u0 * V, s, sh);
        for (int c = threadIdx.x; c < s.units * V; c += 256) partial[(long long)blockIdx.x * C + u0 * V + c] = sh[c % V * s.units + c / V];
        __syncthreads();
    }
}

// partial [chunks, C] = column sums of an even share of the rows of dy [M, C]; grid (chunks)
#define COLUMN_SUM_PARTIAL(T, t) \
    ROOMY_KERNEL column_sum_partial_##t(const T* dy, float* partial, long long M, int C, int chunks) { \
        __shared__ float sh[256 * Lanes<T>::n]; \
        if (C % Lanes<T>::n != 0) column_sum_partial<false, 1>(dy, partial, M, C, chunks, sh); \
        else if (aligned(dy)) column_sum_partial<true, Lanes<T>::n>(dy, partial, M, C, chunks, sh); \
        else column_sum_partial<false, Lanes<T>::n>(dy, partial, M, C, chunks, sh); \
    }
FOR_EACH_TYPE(COLUMN_SUM_PARTIAL)

// out [C] = sums of partial [chunks, C] over the chunks; a block has 32 columns, and each of its warps every eighth chunk; any grid
KERNEL column_sum_finish(const float* partial, float* out, int C, int chunks) {
    __shared__ double sh[256];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (long long c0 = blockIdx.x * 32LL; c0 < C; c0 += gridDim.x * 32LL) {
        double sum = 0.0;
        if (c0 + lane < C) {
#pragma unroll 4
            for (long long k = warp; k < chunks; k += 8) sum += partial[k * C + c0 + lane];
        }
        sh[threadIdx.x] = sum;
        fold_rows(sh, 8, 32);
        if (warp == 0 && c0 + lane < C) out[c0 + lane] = (float)sh[lane];
        __syncthreads();
    }
}

template <bool WIDE, int V, class T> DEVICE void image_sum(const T* x, float* out, long long B, long long P, int C, float* sh) {
    const int c0 = blockIdx.x * 32, width = min(32, C - c0);
    for (long long b = blockIdx.y; b < B; b += gridDim.y) {
        const Span s = span(width / V);
        sum_rows<WIDE, V>(x, b * P, (b + 1) * P, C, c0, s, sh);
        for (int c = threadIdx.x; c < width; c += 256) out[b * C + c0 + c] = sh[c % V * s.units + c / V];
        __syncthreads();
    }
}

// out [B, C] = sum of x [B, P, C] over the pixels; grid (ceil(C / 32), B or fewer)
#define IMAGE_SUM(T, t) \
    ROOMY_KERNEL image_sum_##t(const T* x, float* out, long long B, long long P, int C) { \
        __shared__ float sh[256 * Lanes<T>::n]; \
        if (C % Lanes<T>::n != 0) image_sum<false, 1>(x, out, B, P, C, sh); \
        else if (aligned(x)) image_sum<true, Lanes<T>::n>(x, out, B, P, C, sh); \
        else image_sum<false, Lanes<T>::n>(x, out, B, P, C, sh); \
    }
FOR_EACH_TYPE(IMAGE_SUM)

// Softmax over the rows of attention scores [rows, n], and the pointer lists of batched matrix products.
// For up to 1024 columns, a warp keeps its row in registers; a longer row takes one block, which reads it again from the caches.

// Runs body with the fewest registers that hold a row. Rows of a multiple of four use the same lanes where only the addresses forbid wide accesses.
#define BY_WARP(n, wide, body, ...) \
    if ((n) % 4 == 0 && (wide)) { \
        if ((n) <= 128) body<true, 1, 4>(__VA_ARGS__); \
        else if ((n) <= 256) body<true, 2, 4>(__VA_ARGS__); \
        else if ((n) <= 512) body<true, 4, 4>(__VA_ARGS__); \
        else body<true, 8, 4>(__VA_ARGS__); \
    } else if ((n) % 4 == 0) body<false, 8, 4>(__VA_ARGS__); \
    else if ((n) <= 256) body<false, 8, 1>(__VA_ARGS__); \
    else body<false, 32, 1>(__VA_ARGS__)
#define BY_BLOCK(n, wide, body, ...) \
    if ((n) % 4 != 0) body<false, 1>(__VA_ARGS__); \
    else if (wide) body<true, 4>(__VA_ARGS__); \
    else body<false, 4>(__VA_ARGS__)

struct Sum { DEVICE static float of(float a, float b) { return a + b; } };
struct Max { DEVICE static float of(float a, float b) { return fmaxf(a, b); } };
template <class Op> DEVICE float warp_fold(float v) {
#pragma unroll
    for (int d = 16; d > 0; d /= 2) v = Op::of(v, __shfl_xor_sync(0xffffffffu, v, d));
    return v;
}
template <class Op> DEVICE float block_fold(float v, float* sh) {
    v = warp_fold<Op>(v);
    if (threadIdx.x % 32 == 0) sh[threadIdx.x / 32] = v;
    __syncthreads();
    v = sh[0];
#pragma unroll
    for (int w = 1; w < 8; w++) v = Op::of(v, sh[w]);
    __syncthreads();
    return v;
}
DEVICE float minus_infinity() { return __uint_as_float(0xff800000u); }

template <bool WIDE, int K, int V, class T> DEVICE void softmax_by_warp(const float* s, T* p, long long rows, int n, float scale) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (long long row = blockIdx.x * 8LL + warp; row < rows; row += gridDim.x * 8LL) {
        float v[K][V], top = minus_infinity(), sum = 0.0f;
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int j = (k * 32 + lane) * V;
            if (j < n) load_run<WIDE>(s + row * n + j, v[k]);
#pragma unroll
            for (int i = 0; i < V; i++) {
                v[k][i] = j < n ? v[k][i] * scale : minus_infinity();
                top = fmaxf(top, v[k][i]);
            }
        }
        top = warp_fold<Max>(top);
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int i = 0; i < V; i++) {
                v[k][i] = (k * 32 + lane) * V < n ? __expf(v[k][i] - top) : 0.0f;
                sum += v[k][i];
            }
        const float factor = 1.0f / warp_fold<Sum>(sum);
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int j = (k * 32 + lane) * V;
#pragma unroll
            for (int i = 0; i < V; i++) v[k][i] *= factor;
            if (j < n) store_run<WIDE>(p + row * n + j, v[k]);
        }
    }
}

template <bool WIDE, int V, class T> DEVICE void softmax_by_block(const float* s, T* p, long long rows, int n, float scale, float* sh) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const float* from = s + row * n;
        float v[V], top = minus_infinity(), sum = 0.0f;
#pragma unroll 4
        for (int j = threadIdx.x * V; j < n; j += 256 * V) {
            load_run<WIDE>(from + j, v);
#pragma unroll
            for (int i = 0; i < V; i++) top = fmaxf(top, v[i] * scale);
        }
        top = block_fold<Max>(top, sh);
#pragma unroll 4
        for (int j = threadIdx.x * V; j < n; j += 256 * V) {
            load_run<WIDE>(from + j, v);
#pragma unroll
            for (int i = 0; i < V; i++) sum += __expf(v[i] * scale - top);
        }
        const float factor = 1.0f / block_fold<Sum>(sum, sh);
        for (int j = threadIdx.x * V; j < n; j += 256 * V) {
            load_run<WIDE>(from + j, v);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] = __expf(v[i] * scale - top) * factor;
            store_run<WIDE>(p + row * n + j, v);
        }
    }
}

// p [rows, n] = softmax of scale * s [rows, n] along each row; any grid: ceil(rows / 8) blocks cover n <= 1024 at once, and rows blocks a larger n
#define SOFTMAX(T, t) \
    KERNEL softmax_##t(const float* s, T* p, long long rows, int n, float scale) { \
        __shared__ float sh[8]; \
        if (n > 1024) { BY_BLOCK(n, aligned(s, p), softmax_by_block, s, p, rows, n, scale, sh); } \
        else { BY_WARP(n, aligned(s, p), softmax_by_warp, s, p, rows, n, scale); } \
    }
FOR_EACH_TYPE(SOFTMAX)

template <bool WIDE, int K, int V, class T> DEVICE void softmax_grad_by_warp(const T* p, const float* dp, T* ds, long long rows, int n, float scale) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (long long row = blockIdx.x * 8LL + warp; row < rows; row += gridDim.x * 8LL) {
        float v[K][V] = {}, g[K][V] = {}, dot = 0.0f;
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int j = (k * 32 + lane) * V;
            if (j < n) {
                load_run<WIDE>(p + row * n + j, v[k]);
                load_run<WIDE>(dp + row * n + j, g[k]);
            }
#pragma unroll
            for (int i = 0; i < V; i++) dot = fmaf(v[k][i], g[k][i], dot);
        }
        dot = warp_fold<Sum>(dot);
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int j = (k * 32 + lane) * V;
#pragma unroll
            for (int i = 0; i < V; i++) v[k][i] = scale * v[k][i] * (g[k][i] - dot);
            if (j < n) store_run<WIDE>(ds + row * n + j, v[k]);
        }
    }
}

template <bool WIDE, int V, class T> DEVICE void softmax_grad_by_block(const T* p, const float* dp, T* ds, long long rows, int n, float scale, float* sh) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        float v[V], g[V], dot = 0.0f;
#pragma unroll 4
        for (int j = threadIdx.x * V; j < n; j += 256 * V) {
            load_run<WIDE>(p + row * n + j, v);
            load_run<WIDE>(dp + row * n + j, g);
#pragma unroll
            for (int i = 0; i < V; i++) dot = fmaf(v[i], g[i], dot);
        }
        dot = block_fold<Sum>(dot, sh);
        for (int j = threadIdx.x * V; j < n; j += 256 * V) {
            load_run<WIDE>(p + row * n + j, v);
            load_run<WIDE>(dp + row * n + j, g);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] = scale * v[i] * (g[i] - dot);
            store_run<WIDE>(ds + row * n + j, v);
        }
    }
}

// ds [rows, n] = scale * p * (dp - sum over the row of p * dp); grid as for softmax
#define SOFTMAX_GRAD(T, t) \
    KERNEL softmax_grad_##t(const T* p, const float* dp, T* ds, long long rows, int n, float scale) { \
        __shared__ float sh[8]; \
        if (n > 1024) { BY_BLOCK(n, aligned(p, dp, ds), softmax_grad_by_block, p, dp, ds, rows, n, scale, sh); } \
        else { BY_WARP(n, aligned(p, dp, ds), softmax_grad_by_warp, p, dp, ds, rows, n, scale); } \
    }
FOR_EACH_TYPE(SOFTMAX_GRAD)

// out [B, H] = base + b * image + h * head, in bytes
KERNEL attention_pointers(unsigned long long base, unsigned long long* out, int B, int H, long long image, long long head) {
    for (long long i = thread_index(); i < (long long)B * H; i += thread_count()) {
        const long long b = quotient(i, H);
        out[i] = base + (unsigned long long)(b * image + (i - b * H) * head);
    }
}

// Tokens x [B, N, C], channels last, and an embedding e [B, K, C] of each image, of which an operation reads the parts from `first` on.
// A warp normalises one token, in the same order whatever its address.

// Mean and 1 / sqrt(variance + eps) of one token.
template <class T> DEVICE void token_stats(const T* x, int C, double eps, float& mean, float& rstd) {
    const int lane = threadIdx.x % 32;
    float sum = 0.0f, square = 0.0f;
    for (int c = lane; c < C; c += 32) sum += load(x[c]);
    mean = warp_sum(sum) / C;
    for (int c = lane; c < C; c += 32) {
        const float d = load(x[c]) - mean;
        square = fmaf(d, d, square);
    }
    rstd = (float)(1.0 / sqrt((double)warp_sum(square) / C + eps));
}

template <class T> DEVICE void token_norm(const T* x, const float* e, T* y, int B, int N, int C, int K, int first, double eps) {
    const long long tokens = (long long)B * N;
    for (long long i = thread_index() / 32; i < tokens; i += thread_count() / 32) {
        const T* from = x + i * C;
        const float* shift = e + (quotient(i, N) * K + first) * C;
        float mean, rstd;
        token_stats(from, C, eps, mean, rstd);
        for (int c = threadIdx.x % 32; c < C; c += 32) y[i * C + c] = store<T>(fmaf((load(from[c]) - mean) * rstd, 1.0f + shift[C + c], shift[c]));
    }
}

// y [B, N, C] = (x - mean) * rstd * (1 + e[first + 1]) + e[first]; any grid
#define TOKEN_NORM(T, t) \
    KERNEL token_norm_##t(const T* x, const float* e, T* y, int B, int N, int C, int K, int first, double eps) { token_norm(x, e, y, B, N, C, K, first, eps); }
FOR_EACH_TYPE(TOKEN_NORM)

template <class T>
DEVICE void token_norm_grad(const T* x, const float* e, const T* dy, float* dx, float* stats, int B, int N, int C, int K, int first, double eps) {
    const long long tokens = (long long)B * N;
    for (long long i = thread_index() / 32; i < tokens; i += thread_count() / 32) {
        const T *from = x + i * C, *g = dy + i * C;
        const float* scale = e + (quotient(i, N) * K + first + 1) * C;
        float mean, rstd, sum = 0.0f, product = 0.0f;
        token_stats(from, C, eps, mean, rstd);
        for (int c = threadIdx.x % 32; c < C; c += 32) {
            const float du = load(g[c]) * (1.0f + scale[c]);
            sum += du;
            product = fmaf(du, (load(from[c]) - mean) * rstd, product);
        }
        sum = warp_sum(sum) / C;
        product = warp_sum(product) / C;
        for (int c = threadIdx.x % 32; c < C; c += 32)
            dx[i * C + c] = rstd * (load(g[c]) * (1.0f + scale[c]) - sum - (load(from[c]) - mean) * rstd * product);
        if (threadIdx.x % 32 == 0) {
            stats[2 * i] = mean;
            stats[2 * i + 1] = rstd;
        }
    }
}

// dx [B, N, C] and stats [B, N, 2] = mean and rstd of each token; any grid
#define TOKEN_NORM_GRAD(T, t) \
    KERNEL token_norm_grad_##t(const T* x, const float* e, const T* dy, float* dx, float* stats, int B, int N, int C, int K, int first, double eps) { \
        token_norm_grad(x, e, dy, dx, stats, B, N, C, K, first, eps); \
    }
FOR_EACH_TYPE(TOKEN_NORM_GRAD)

// de [B, K, C]: sums over the tokens of dy and dy * xhat in the parts first and first + 1, zeros in the others; a thread per number, any grid
template <class T> DEVICE void token_norm_sums(const T* x, const T* dy, const float* stats, float* de, int B, int N, int C, int K, int first) {
    const long long n = (long long)B * K * C;
    for (long long i = thread_index(); i < n; i += thread_count()) {
        const long long row = quotient(i, C), b = quotient(row, K);
        const int c = (int)(i - row * C), part = (int)(row - b * K) - first;
        double total = 0.0;
        if (part == 0 || part == 1) {
#pragma unroll 4
            for (long long p = b * N; p < (b + 1) * N; p++) {
                const float g = load(dy[p * C + c]);
                total += part == 0 ? g : g * (load(x[p * C + c]) - stats[2 * p]) * stats[2 * p + 1];
            }
        }
        de[i] = (float)total;
    }
}

#define TOKEN_NORM_SUMS(T, t) \
    KERNEL token_norm_sums_##t(const T* x, const T* dy, const float* stats, float* de, int B, int N, int C, int K, int first) { \
        token_norm_sums(x, dy, stats, de, B, N, C, K, first); \
    }
FOR_EACH_TYPE(TOKEN_NORM_SUMS)

// y [B, N, C] = x + e[first] * h; any grid
#define ADD_GATED(T, t) \
    KERNEL add_gated_##t(const T* x, const T* h, const float* e, T* y, int B, int N, int C, int K, int first) { \
        const long long n = (long long)B * N * C; \
        for (long long i = thread_index(); i < n; i += thread_count()) { \
            const long long token = quotient(i, C), b = quotient(token, N); \
            y[i] = store<T>(fmaf(e[(b * K + first) * C + (i - token * C)], load(h[i]), load(x[i]))); \
        } \
    }
FOR_EACH_TYPE(ADD_GATED)

// dh [B, N, C] = e[first] * dy; any grid
#define ADD_GATED_GRAD(T, t) \
    KERNEL add_gated_grad_##t(const float* e, const T* dy, float* dh, int B, int N, int C, int K, int first) { \
        const long long n = (long long)B * N * C; \
        for (long long i = thread_index(); i < n; i += thread_count()) { \
            const long long token = quotient(i, C), b = quotient(token, N); \
            dh[i] = e[(b * K + first) * C + (i - token * C)] * load(dy[i]); \
        } \
    }
FOR_EACH_TYPE(ADD_GATED_GRAD)

// de [B, K, C]: sums over the tokens of dy * h in the part first, zeros in the others; a thread per number, any grid
#define ADD_GATED_SUMS(T, t) \
    KERNEL add_gated_sums_##t(const T* h, const T* dy, float* de, int B, int N, int C, int K, int first) { \
        const long long n = (long long)B * K * C; \
        for (long long i = thread_index(); i < n; i += thread_count()) { \
            const long long row = quotient(i, C), b = quotient(row, K), c = i - row * C; \
            double total = 0.0; \
            if (row - b * K == first) \
                for (long long p = b * N; p < (b + 1) * N; p++) total += load(dy[p * C + c]) * load(h[p * C + c]); \
            de[i] = (float)total; \
        } \
    }
FOR_EACH_TYPE(ADD_GATED_SUMS)

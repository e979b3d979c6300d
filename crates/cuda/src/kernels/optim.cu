// One optimiser step over all tensors. ptrs [tensors, 5] are the addresses of p, g, m, v and e in float; g is 0 without a gradient, e without an
// average. Block k updates the 65536 elements from chunk_start[k] of tensor chunk_tensor[k]. Whether the step counts is decided on the device.

enum { CHUNK = 65536, P = 0, G, M, V, E };
struct Piece {
    const unsigned long long* at;
    long long start, count;
    DEVICE float* of(int which) const { return at[which] ? (float*)at[which] + start : 0; }
};
DEVICE Piece piece(const unsigned long long* ptrs, const long long* lens, const int* chunk_tensor, const long long* chunk_start) {
    const int tensor = chunk_tensor[blockIdx.x];
    Piece c;
    c.at = ptrs + 5LL * tensor;
    c.start = chunk_start[blockIdx.x];
    c.count = min(lens[tensor] - c.start, (long long)CHUNK);
    return c;
}

// partial [n_chunks] = sum of g^2 in double over each chunk, 0 without a gradient; grid (n_chunks)
KERNEL grad_squares(const unsigned long long* ptrs, const long long* lens, const int* chunk_tensor, const long long* chunk_start, double* partial, int n_chunks) {
    __shared__ double sh[256];
    const Piece c = piece(ptrs, lens, chunk_tensor, chunk_start);
    const float* g = c.of(G);
    const long long quads = g ? c.count / 4 : 0;
    const bool wide = aligned(g);
    double sum = 0.0;
#pragma unroll 4
    for (long long i = threadIdx.x; i < quads; i += 256) {
        float v[4];
        if (wide) load_run<true>(g + 4 * i, v);
        else load_run<false>(g + 4 * i, v);
#pragma unroll
        for (int k = 0; k < 4; k++) sum += (double)v[k] * v[k];
    }
    if (g && 4 * quads + threadIdx.x < c.count) {
        const double last = g[4 * quads + threadIdx.x];
        sum += last * last;
    }
    sh[threadIdx.x] = sum;
    fold_rows(sh, 256, 1);
    if (threadIdx.x == 0) partial[blockIdx.x] = sh[0];
}

// out [1] = sum of x [n] in a fixed order; one block
KERNEL sum_double(const double* x, double* out, int n) {
    __shared__ double sh[256];
    double sum = 0.0;
#pragma unroll 4
    for (long long i = threadIdx.x; i < n; i += 256) sum += x[i];
    sh[threadIdx.x] = sum;
    fold_rows(sh, 256, 1);
    if (threadIdx.x == 0) out[0] = sh[0];
}

// Checks loss and gradient norm, then writes scalars [13] for the update and advances state [8], or skips; grid 1, block 1
// settings [12]: lr, max_norm, beta1, beta2, eps, weight_decay, ema_rate, ema_ramp, loss_scaling, growth_interval, -, -
// state [8]: updates, ema updates, loss scale, good steps, gradient norm, verdict (0 updated, 1 loss or 2 gradient not finite), -, -
extern "C" __global__ void decide(const double* norm2, const double* loss, double* state, float* scalars, const double* settings) {
    const double lr = settings[0], max_norm = settings[1], beta1 = settings[2], beta2 = settings[3], rate = settings[6];
    const bool scaling = settings[8] != 0.0;
    const double scale = scaling ? state[2] : 1.0, norm = sqrt(*norm2) / scale;
    const int verdict = *loss - *loss != 0.0 ? 1 : norm - norm != 0.0 ? 2 : 0;
    state[4] = norm;
    state[5] = verdict;
    if (verdict != 0) {
        scalars[0] = 1.0f;
        if (scaling && verdict == 2) {
            state[2] = fmax(scale / 2.0, 1.0);
            state[3] = 0.0;
        }
        return;
    }
    const double clip = max_norm > 0.0 ? fmin(1.0, max_norm / (norm + 1e-6)) : 1.0;
    const double k = state[0] + 1.0, n = state[1];
    const double keep = settings[7] != 0.0 ? fmin(rate, (1.0 + n) / (10.0 + n)) : rate;
    scalars[0] = 0.0f;
    scalars[1] = (float)(clip / scale);
    scalars[2] = (float)(1.0 - __dmul_rn(lr, settings[5]));
    scalars[3] = (float)(1.0 - beta1);
    scalars[4] = (float)beta2;
    scalars[5] = (float)(1.0 - beta2);
    scalars[6] = (float)(lr / (1.0 - pow(beta1, k)));
    scalars[7] = (float)sqrt(1.0 - pow(beta2, k));
    scalars[8] = (float)settings[4];
    scalars[9] = (float)keep;
    scalars[10] = (float)(1.0 - keep);
    scalars[11] = (float)lr;
    scalars[12] = (float)settings[5];
    state[0] = k;
    state[1] = n + 1.0;
    if (scaling) {
        state[3] += 1.0;
        if (state[3] >= settings[9]) {
            state[2] = fmin(scale * 2.0, 16777216.0);
            state[3] = 0.0;
        }
    }
}

// e = e * keep + p * (1 - keep), each product rounded
DEVICE float average(float e, float p, float keep, float take) { return __fadd_rn(__fmul_rn(e, keep), __fmul_rn(p, take)); }

// Applies step(p, g, m, v) to N elements from i and updates the average; without g only the average.
template <bool WIDE, int N, class Step> DEVICE void advance(float* p, const float* g, float* m, float* v, float* e, long long i, float keep, float take, Step step) {
    float pn[N], gn[N], mn[N] = {}, vn[N] = {}, en[N];
    load_run<WIDE>(p + i, pn);
    if (e) load_run<WIDE>(e + i, en);
    if (g) {
        load_run<WIDE>(g + i, gn);
        if (m) load_run<WIDE>(m + i, mn);
        if (v) load_run<WIDE>(v + i, vn);
#pragma unroll
        for (int k = 0; k < N; k++) step(pn[k], gn[k], mn[k], vn[k]);
        store_run<WIDE>(p + i, pn);
        if (m) store_run<WIDE>(m + i, mn);
        if (v) store_run<WIDE>(v + i, vn);
    }
    if (e) {
#pragma unroll
        for (int k = 0; k < N; k++) en[k] = average(en[k], pn[k], keep, take);
        store_run<WIDE>(e + i, en);
    }
}
template <class Step> DEVICE void advance_piece(const Piece& c, bool has_m, bool has_v, const float* scalars, Step step) {
    float *p = c.of(P), *m = has_m ? c.of(M) : 0, *v = has_v ? c.of(V) : 0, *e = c.of(E);
    const float* g = c.of(G);
    if (!g && !e) return;
    const long long quads = aligned(p, g, m, v, e) ? c.count / 4 : 0;
    for (long long i = threadIdx.x; i < quads; i += 256) advance<true, 4>(p, g, m, v, e, 4 * i, scalars[9], scalars[10], step);
    for (long long i = 4 * quads + threadIdx.x; i < c.count; i += 256) advance<false, 1>(p, g, m, v, e, i, scalars[9], scalars[10], step);
}

// AdamW on p, m, v with gradient g, and the average e; grid (n_chunks)
KERNEL adamw(const unsigned long long* ptrs, const long long* lens, const int* chunk_tensor, const long long* chunk_start, const float* scalars, int n_chunks) {
    if (scalars[0] != 0.0f) return;
    const float factor = scalars[1], decay = scalars[2], take1 = scalars[3], keep2 = scalars[4], take2 = scalars[5];
    const float step_size = scalars[6], correction = scalars[7], eps = scalars[8];
    advance_piece(piece(ptrs, lens, chunk_tensor, chunk_start), true, true, scalars, [=](float& p, float g, float& m, float& v) {
        g = __fmul_rn(g, factor);
        m = __fmaf_rn(__fsub_rn(g, m), take1, m);
        v = __fmaf_rn(__fmul_rn(take2, g), g, __fmul_rn(keep2, v));
        const float den = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), correction), eps);
        p = __fsub_rn(__fmul_rn(p, decay), __fdiv_rn(__fmul_rn(step_size, m), den));
    });
}

// SGD with weight decay and momentum in m (unused if momentum is 0), and the average e; grid (n_chunks)
KERNEL sgd(const unsigned long long* ptrs, const long long* lens, const int* chunk_tensor, const long long* chunk_start, const float* scalars, int n_chunks, float momentum) {
    if (scalars[0] != 0.0f) return;
    const float factor = scalars[1], lr = scalars[11], weight_decay = scalars[12];
    advance_piece(piece(ptrs, lens, chunk_tensor, chunk_start), momentum != 0.0f, false, scalars, [=](float& p, float g, float& m, float&) {
        g = __fadd_rn(__fmul_rn(g, factor), __fmul_rn(weight_decay, p));
        if (momentum != 0.0f) g = m = __fadd_rn(__fmul_rn(m, momentum), g);
        p = __fsub_rn(p, __fmul_rn(lr, g));
    });
}

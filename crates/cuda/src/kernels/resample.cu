// Changes of resolution on [B, H, W, C], channels last. A thread has V neighbouring channels of one pixel; any grid with 256 threads per block.

// Runs body<16 bytes at a time> where the channels and addresses allow it, else one element at a time.
#define BY_CHANNELS(T, C, a, b, c, body, ...) \
    if ((C) % Lanes<T>::n == 0 && aligned(a, b, c)) body<true, Lanes<T>::n>(__VA_ARGS__); \
    else body<false, 1>(__VA_ARGS__)

// Unit i of a tensor [B, H, W, C / V] as image, row, column and first channel.
struct Place { int b, h, w, c; };
DEVICE Place place(long long i, int H, int W, int units, int V) {
    const long long pixel = quotient(i, units), line = quotient(pixel, W), image = quotient(line, H);
    Place p;
    p.b = (int)image;
    p.h = (int)(line - image * H);
    p.w = (int)(pixel - line * W);
    p.c = (int)(i - pixel * units) * V;
    return p;
}
DEVICE long long at(int b, int h, int w, int c, int H, int W, int C) { return (((long long)b * H + h) * W + w) * C + c; }

template <bool WIDE, int V, class T> DEVICE void upsample(const T* x, T* y, int B, int H, int W, int C) {
    const int units = C / V;
    const long long n = (long long)B * H * W * units;
    for (long long i = thread_index(); i < n; i += thread_count()) {
        const Place p = place(i, H, W, units, V);
        float v[V];
        load_run<WIDE>(x + i * V, v);
#pragma unroll
        for (int q = 0; q < 4; q++) store_run<WIDE>(y + at(p.b, 2 * p.h + q / 2, 2 * p.w + q % 2, p.c, 2 * H, 2 * W, C), v);
    }
}

// y [B, 2H, 2W, C] = each pixel of x [B, H, W, C] four times
#define UPSAMPLE(T, t) \
    KERNEL upsample_##t(const T* x, T* y, int B, int H, int W, int C) { BY_CHANNELS(T, C, x, y, 0, upsample, x, y, B, H, W, C); }
FOR_EACH_TYPE(UPSAMPLE)

template <bool WIDE, int V, class T> DEVICE void pool2(const T* x, T* y, int B, int H, int W, int C, float factor) {
    const int units = C / V;
    const long long n = (long long)B * (H / 2) * (W / 2) * units;
    for (long long i = thread_index(); i < n; i += thread_count()) {
        const Place p = place(i, H / 2, W / 2, units, V);
        const T* from = x + at(p.b, 2 * p.h, 2 * p.w, p.c, H, W, C);
        float a[V], b[V], c[V], d[V];
        load_run<WIDE>(from, a);
        load_run<WIDE>(from + C, b);
        load_run<WIDE>(from + (long long)W * C, c);
        load_run<WIDE>(from + (long long)(W + 1) * C, d);
#pragma unroll
        for (int k = 0; k < V; k++) a[k] = factor * ((a[k] + b[k]) + (c[k] + d[k]));
        store_run<WIDE>(y + i * V, a);
    }
}

// y [B, H/2, W/2, C] = factor * sum of each 2 x 2 square of x [B, H, W, C]; an odd last row or column is ignored
#define POOL2(T, t) \
    KERNEL pool2_##t(const T* x, T* y, int B, int H, int W, int C, float factor) { BY_CHANNELS(T, C, x, y, 0, pool2, x, y, B, H, W, C, factor); }
FOR_EACH_TYPE(POOL2)

template <bool WIDE, int V, class T> DEVICE void pool2_grad(const T* dy, T* dx, int B, int H, int W, int C, float factor) {
    const int units = C / V;
    const long long n = (long long)B * H * W * units;
    for (long long i = thread_index(); i < n; i += thread_count()) {
        const Place p = place(i, H, W, units, V);
        float v[V] = {};
        if (p.h / 2 < H / 2 && p.w / 2 < W / 2) load_run<WIDE>(dy + at(p.b, p.h / 2, p.w / 2, p.c, H / 2, W / 2, C), v);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] *= factor;
        store_run<WIDE>(dx + i * V, v);
    }
}

// dx [B, H, W, C] = factor * dy [B, H/2, W/2, C] of its square, 0 in an odd last row or column
#define POOL2_GRAD(T, t) \
    KERNEL pool2_grad_##t(const T* dy, T* dx, int B, int H, int W, int C, float factor) { BY_CHANNELS(T, C, dy, dx, 0, pool2_grad, dy, dx, B, H, W, C, factor); }
FOR_EACH_TYPE(POOL2_GRAD)

// y [B, Ho, Wo, C] = factor * x [B, H, W, C], padded by zeros, convolved with f x f at every second pixel; f [k]
template <bool WIDE, int V, class T>
DEVICE void filter_down(const T* x, const float* f, T* y, int B, int H, int W, int C, int Ho, int Wo, int k, int pad, float factor) {
    const int units = C / V;
    const long long n = (long long)B * Ho * Wo * units;
    for (long long i = thread_index(); i < n; i += thread_count()) {
        const Place p = place(i, Ho, Wo, units, V);
        float sum[V] = {}, v[V];
        for (int r = 0; r < k; r++) {
            const int h = 2 * p.h + r - pad;
            if (h < 0 || h >= H) continue;
            for (int c = 0; c < k; c++) {
                const int w = 2 * p.w + c - pad;
                if (w < 0 || w >= W) continue;
                const float weight = factor * f[r] * f[c];
                load_run<WIDE>(x + at(p.b, h, w, p.c, H, W, C), v);
#pragma unroll
                for (int j = 0; j < V; j++) sum[j] = fmaf(weight, v[j], sum[j]);
            }
        }
        store_run<WIDE>(y + i * V, sum);
    }
}

// y [B, Ho, Wo, C] = factor * the adjoint of the convolution above, from x [B, H, W, C]
template <bool WIDE, int V, class T>
DEVICE void filter_up(const T* x, const float* f, T* y, int B, int H, int W, int C, int Ho, int Wo, int k, int pad, float factor) {
    const int units = C / V;
    const long long n = (long long)B * Ho * Wo * units;
    for (long long i = thread_index(); i < n; i += thread_count()) {
        const Place p = place(i, Ho, Wo, units, V);
        const int row = p.h + pad, column = p.w + pad;
        float sum[V] = {}, v[V];
        for (int r = row % 2; r < min(k, row + 1); r += 2) {
            const int h = (row - r) / 2;
            if (h >= H) continue;
            for (int c = column % 2; c < min(k, column + 1); c += 2) {
                const int w = (column - c) / 2;
                if (w >= W) continue;
                const float weight = factor * f[r] * f[c];
                load_run<WIDE>(x + at(p.b, h, w, p.c, H, W, C), v);
#pragma unroll
                for (int j = 0; j < V; j++) sum[j] = fmaf(weight, v[j], sum[j]);
            }
        }
        store_run<WIDE>(y + i * V, sum);
    }
}

#define FILTER(direction, T, t) \
    KERNEL direction##_##t(const T* x, const float* f, T* y, int B, int H, int W, int C, int Ho, int Wo, int k, int pad, float factor) { \
        BY_CHANNELS(T, C, x, y, 0, direction, x, f, y, B, H, W, C, Ho, Wo, k, pad, factor); \
    }
#define FILTERS(T, t) FILTER(filter_down, T, t) FILTER(filter_up, T, t)
FOR_EACH_TYPE(FILTERS)

// The part of a k x k window inside the image: rows h0 .. h1 and columns w0 .. w1.
struct Window { int h0, h1, w0, w1; };
DEVICE Window window(int oh, int ow, int H, int W, int k, int stride, int pad) {
    const int h = oh * stride - pad, w = ow * stride - pad;
    Window r;
    r.h0 = max(h, 0);
    r.h1 = min(h + k, H);
    r.w0 = max(w, 0);
    r.w1 = min(w + k, W);
    return r;
}

template <bool WIDE, int V, class T> DEVICE void pool(const T* x, T* y, int B, int H, int W, int C, int k, int stride, int pad, int mean) {
    const int units = C / V, Ho = (H + 2 * pad - k) / stride + 1, Wo = (W + 2 * pad - k) / stride + 1;
    const long long n = (long long)B * Ho * Wo * units;
    for (long long i = thread_index(); i < n; i += thread_count()) {
        const Place p = place(i, Ho, Wo, units, V);
        const Window r = window(p.h, p.w, H, W, k, stride, pad);
        float sum[V], v[V];
#pragma unroll
        for (int j = 0; j < V; j++) sum[j] = mean ? 0.0f : -__uint_as_float(0x7f800000u);
        for (int h = r.h0; h < r.h1; h++)
            for (int w = r.w0; w < r.w1; w++) {
                load_run<WIDE>(x + at(p.b, h, w, p.c, H, W, C), v);
#pragma unroll
                for (int j = 0; j < V; j++) sum[j] = mean ? sum[j] + v[j] : (v[j] > sum[j] || v[j] != v[j] ? v[j] : sum[j]);
            }
        const float count = (float)max((r.h1 - r.h0) * (r.w1 - r.w0), 1);
#pragma unroll
        for (int j = 0; j < V; j++) sum[j] = mean ? sum[j] / count : sum[j];
        store_run<WIDE>(y + i * V, sum);
    }
}

// y [B, Ho, Wo, C] = mean over the part of each k x k window inside the image, or its maximum (NaN if it has one)
#define POOL(T, t) \
    ROOMY_KERNEL pool_##t(const T* x, T* y, int B, int H, int W, int C, int k, int stride, int pad, int mean) { \
        BY_CHANNELS(T, C, x, y, 0, pool, x, y, B, H, W, C, k, stride, pad, mean); \
    }
FOR_EACH_TYPE(POOL)

template <bool WIDE, int V, class T>
DEVICE void pool_grad(const T* x, const T* dy, T* dx, int B, int H, int W, int C, int k, int stride, int pad, int mean) {
    const int units = C / V, Ho = (H + 2 * pad - k) / stride + 1, Wo = (W + 2 * pad - k) / stride + 1;
    const long long n = (long long)B * H * W * units;
    for (long long i = thread_index(); i < n; i += thread_count()) {
        const Place p = place(i, H, W, units, V);
        const int oh0 = max(p.h + pad - k + stride, 0) / stride, oh1 = min((p.h + pad) / stride, Ho - 1);
        const int ow0 = max(p.w + pad - k + stride, 0) / stride, ow1 = min((p.w + pad) / stride, Wo - 1);
        float sum[V] = {}, g[V], v[V], best[V];
        int winner[V];
        for (int oh = oh0; oh <= oh1; oh++)
            for (int ow = ow0; ow <= ow1; ow++) {
                const Window r = window(oh, ow, H, W, k, stride, pad);
                load_run<WIDE>(dy + at(p.b, oh, ow, p.c, Ho, Wo, C), g);
                if (mean) {
                    const float count = (float)((r.h1 - r.h0) * (r.w1 - r.w0));
#pragma unroll
                    for (int j = 0; j < V; j++) sum[j] += g[j] / count;
                    continue;
                }
#pragma unroll
                for (int j = 0; j < V; j++) winner[j] = -1;
                for (int h = r.h0; h < r.h1; h++)
                    for (int w = r.w0; w < r.w1; w++) {
                        load_run<WIDE>(x + at(p.b, h, w, p.c, H, W, C), v);
#pragma unroll
                        for (int j = 0; j < V; j++)
                            if (winner[j] < 0 || v[j] > best[j] || (v[j] != v[j] && best[j] == best[j])) {
                                best[j] = v[j];
                                winner[j] = (h - r.h0) * k + (w - r.w0);
                            }
                    }
                const int self = (p.h - r.h0) * k + (p.w - r.w0);
#pragma unroll
                for (int j = 0; j < V; j++) sum[j] += winner[j] == self ? g[j] : 0.0f;
            }
        store_run<WIDE>(dx + i * V, sum);
    }
}

// dx [B, H, W, C] gathered from dy [B, Ho, Wo, C]: an even share of each window's mean, or all of it at the first maximum in row order
#define POOL_GRAD(T, t) \
    ROOMY_KERNEL pool_grad_##t(const T* x, const T* dy, T* dx, int B, int H, int W, int C, int k, int stride, int pad, int mean) { \
        BY_CHANNELS(T, C, x, dy, dx, pool_grad, x, dy, dx, B, H, W, C, k, stride, pad, mean); \
    }
FOR_EACH_TYPE(POOL_GRAD)

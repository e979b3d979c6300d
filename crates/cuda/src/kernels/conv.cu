// Direct convolution on channels-last tensors, the fallback: x [B, H, W, Ci], w [Co, kh, kw, Ci], y [B, Ho, Wo, Co], sums in float.

#define SHAPE int B, int H, int W, int Ci, int Co, int kh, int kw, int stride, int pad_h, int pad_w, int Ho, int Wo
#define SHAPE_OF B, H, W, Ci, Co, kh, kw, stride, pad_h, pad_w, Ho, Wo

// Pixel m of a tensor with Hx x Wx pixels an image.
struct Pixel { long long b; int h, w; };
DEVICE Pixel pixel(long long m, int Hx, int Wx) {
    const long long line = quotient(m, Wx);
    Pixel p;
    p.b = quotient(line, Hx);
    p.h = (int)(line - p.b * Hx);
    p.w = (int)(m - line * Wx);
    return p;
}

template <bool WIDE, int V, class T> DEVICE void conv_direct(const T* x, const T* w, T* y, SHAPE) {
    const long long n = (long long)B * Ho * Wo * Co;
    for (long long i = thread_index(); i < n; i += thread_count()) {
        const long long m = quotient(i, Co);
        const int co = (int)(i - m * Co);
        const Pixel p = pixel(m, Ho, Wo);
        float sum = 0.0f, a[V], b[V];
        for (int r = 0; r < kh; r++) {
            const int h = p.h * stride + r - pad_h;
            if (h < 0 || h >= H) continue;
            for (int c = 0; c < kw; c++) {
                const int col = p.w * stride + c - pad_w;
                if (col < 0 || col >= W) continue;
                const T* from = x + ((p.b * H + h) * W + col) * Ci;
                const T* weight = w + (((long long)co * kh + r) * kw + c) * Ci;
                for (int ci = 0; ci < Ci; ci += V) {
                    load_run<WIDE>(from + ci, a);
                    load_run<WIDE>(weight + ci, b);
#pragma unroll
                    for (int k = 0; k < V; k++) sum = fmaf(a[k], b[k], sum);
                }
            }
        }
        y[i] = store<T>(sum);
    }
}

// y [B, Ho, Wo, Co] = x [B, H, W, Ci] * w [Co, kh, kw, Ci]; one thread per output element, any grid
#define CONV_DIRECT(T, t) \
    KERNEL conv_direct_##t(const T* x, const T* w, T* y, SHAPE) { \
        if (Ci % Lanes<T>::n == 0 && aligned(x, w)) conv_direct<true, Lanes<T>::n>(x, w, y, SHAPE_OF); \
        else conv_direct<false, 1>(x, w, y, SHAPE_OF); \
    }
FOR_EACH_TYPE(CONV_DIRECT)

// dx [B, H, W, Ci] = sum over the outputs that read the element of dy [B, Ho, Wo, Co] * w; one thread per element of dx, any grid
template <class T> DEVICE void conv_direct_input_grad(const T* dy, const T* w, T* dx, SHAPE) {
    const long long n = (long long)B * H * W * Ci, filter = (long long)kh * kw * Ci;
    for (long long i = thread_index(); i < n; i += thread_count()) {
        const long long m = quotient(i, Ci);
        const int ci = (int)(i - m * Ci);
        const Pixel p = pixel(m, H, W);
        float sum = 0.0f;
        for (int r = 0; r < kh; r++) {
            const int h = p.h + pad_h - r;
            if (h < 0 || h % stride != 0 || h / stride >= Ho) continue;
            for (int c = 0; c < kw; c++) {
                const int col = p.w + pad_w - c;
                if (col < 0 || col % stride != 0 || col / stride >= Wo) continue;
                const T* from = dy + ((p.b * Ho + h / stride) * Wo + col / stride) * Co;
                const T* weight = w + ((long long)r * kw + c) * Ci + ci;
#pragma unroll 4
                for (int co = 0; co < Co; co++) sum = fmaf(load(from[co]), load(weight[co * filter]), sum);
            }
        }
        dx[i] = store<T>(sum);
    }
}
#define CONV_DIRECT_INPUT_GRAD(T, t) \
    KERNEL conv_direct_input_grad_##t(const T* dy, const T* w, T* dx, SHAPE) { conv_direct_input_grad(dy, w, dx, SHAPE_OF); }
FOR_EACH_TYPE(CONV_DIRECT_INPUT_GRAD)

// dw [Co, kh, kw, Ci] = sum over the outputs of dy * x; one block per (co, row, column), its threads over Ci and pixels; grid (Co * kh * kw)
template <class T> DEVICE void conv_direct_weight_grad(const T* x, const T* dy, float* dw, SHAPE, float* sh) {
    const int c = blockIdx.x % kw, r = blockIdx.x / kw % kh, co = blockIdx.x / kw / kh;
    const long long pixels = (long long)B * Ho * Wo;
    for (int c0 = 0; c0 < Ci; c0 += 256) {
        const Span s = span(Ci - c0);
        if (s.row < s.rows) {
            float sum = 0.0f;
#pragma unroll 2
            for (long long m = s.row; m < pixels; m += s.rows) {
                const Pixel p = pixel(m, Ho, Wo);
                const int h = p.h * stride + r - pad_h, col = p.w * stride + c - pad_w;
                if (h < 0 || h >= H || col < 0 || col >= W) continue;
                sum = fmaf(load(dy[m * Co + co]), load(x[((p.b * H + h) * W + col) * Ci + c0 + s.unit]), sum);
            }
            sh[s.row * s.units + s.unit] = sum;
        }
        fold_rows(sh, s.rows, s.units);
        if (s.row == 0) dw[(long long)blockIdx.x * Ci + c0 + s.unit] = sh[s.unit];
        __syncthreads();
    }
}
#define CONV_DIRECT_WEIGHT_GRAD(T, t) \
    KERNEL conv_direct_weight_grad_##t(const T* x, const T* dy, float* dw, SHAPE) { \
        __shared__ float sh[256]; \
        conv_direct_weight_grad(x, dy, dw, SHAPE_OF, sh); \
    }
FOR_EACH_TYPE(CONV_DIRECT_WEIGHT_GRAD)

// Element by element over n values: any grid with 256 threads per block.

// y = f(x)
template <class X, class Y, class F> DEVICE void map(const X* x, Y* y, long long n, F f) {
    enum { V = (int)Lanes<X>::n > (int)Lanes<Y>::n ? Lanes<X>::n : Lanes<Y>::n };
    const long long wide = aligned(x, y) ? n / V : 0;
    for (long long i = thread_index(); i < wide; i += thread_count()) {
        float v[V];
        load_run<true>(x + i * V, v);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = f(v[k]);
        store_run<true>(y + i * V, v);
    }
    for (long long i = wide * V + thread_index(); i < n; i += thread_count()) y[i] = store<Y>(f(load(x[i])));
}

// y = f(a, b)
template <class A, class B, class Y, class F> DEVICE void map(const A* a, const B* b, Y* y, long long n, F f) {
    enum { V = Lanes<Y>::n };
    const long long wide = aligned(a, b, y) ? n / V : 0;
    for (long long i = thread_index(); i < wide; i += thread_count()) {
        float v[V], w[V];
        load_run<true>(a + i * V, v);
        load_run<true>(b + i * V, w);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = f(v[k], w[k]);
        store_run<true>(y + i * V, v);
    }
    for (long long i = wide * V + thread_index(); i < n; i += thread_count()) y[i] = store<Y>(f(load(a[i]), load(b[i])));
}

// y [n] = x [n] in another type
#define CAST(S, s, D, d) \
    KERNEL cast_##s##_##d(const S* x, D* y, long long n) { map(x, y, n, [](float v) { return v; }); }
CAST(float, f32, bf16, bf16)
CAST(float, f32, f16, f16)
CAST(bf16, bf16, float, f32)
CAST(bf16, bf16, f16, f16)
CAST(f16, f16, float, f32)
CAST(f16, f16, bf16, bf16)

// y [n] = a [n] + b [n]
#define ADD(T, t) \
    KERNEL add_##t(const T* a, const T* b, T* y, long long n) { map(a, b, y, n, [](float v, float w) { return v + w; }); }
FOR_EACH_TYPE(ADD)

// y [n] = factor (a [n] + b [n])
#define ADD_SCALED(T, t) \
    KERNEL add_scaled_##t(const T* a, const T* b, T* y, long long n, float factor) { \
        map(a, b, y, n, [factor](float v, float w) { return (v + w) * factor; }); \
    }
FOR_EACH_TYPE(ADD_SCALED)

// y [n] = factor x [n]
#define SCALE(T, t) \
    KERNEL scale_##t(const T* x, T* y, long long n, float factor) { map(x, y, n, [factor](float v) { return v * factor; }); }
FOR_EACH_TYPE(SCALE)

// y [n] = x [n] * m [n], the factors m in float (dropout)
#define MUL(T, t) \
    KERNEL mul_##t(const T* x, const float* m, T* y, long long n) { map(x, m, y, n, [](float v, float w) { return v * w; }); }
FOR_EACH_TYPE(MUL)

// y [n] = x * sigmoid(x)
#define SILU(T, t) \
    KERNEL silu_##t(const T* x, T* y, long long n) { map(x, y, n, [](float v) { return silu(v); }); }
FOR_EACH_TYPE(SILU)

// dx [n] = dy [n] * silu'(x)
#define SILU_GRAD(T, t) \
    KERNEL silu_grad_##t(const T* x, const T* dy, T* dx, long long n) { map(x, dy, dx, n, [](float v, float g) { return g * silu_slope(v); }); }
FOR_EACH_TYPE(SILU_GRAD)

// y [n] = GELU(x)
#define GELU(T, t) \
    KERNEL gelu_##t(const T* x, T* y, long long n) { map(x, y, n, [](float v) { return gelu(v); }); }
FOR_EACH_TYPE(GELU)

// dx [n] = dy [n] * GELU'(x)
#define GELU_GRAD(T, t) \
    KERNEL gelu_grad_##t(const T* x, const T* dy, T* dx, long long n) { map(x, dy, dx, n, [](float v, float g) { return g * gelu_slope(v); }); }
FOR_EACH_TYPE(GELU_GRAD)

// y [n] = max(x, 0); the comparison is false for NaN, which therefore stays NaN
#define RELU(T, t) \
    KERNEL relu_##t(const T* x, T* y, long long n) { map(x, y, n, [](float v) { return v <= 0.0f ? 0.0f : v; }); }
FOR_EACH_TYPE(RELU)

// dx [n] = dy [n] where the output y [n] is above zero, else 0
#define RELU_GRAD(T, t) \
    KERNEL relu_grad_##t(const T* y, const T* dy, T* dx, long long n) { map(y, dy, dx, n, [](float v, float g) { return v > 0.0f ? g : 0.0f; }); }
FOR_EACH_TYPE(RELU_GRAD)

// dst [n] = dst * a + src [n] * b; each product is rounded before the sum, as the CPU does it
KERNEL blend(float* dst, const float* src, float a, float b, long long n) {
    map(dst, src, dst, n, [a, b](float d, float s) { return __fadd_rn(__fmul_rn(d, a), __fmul_rn(s, b)); });
}

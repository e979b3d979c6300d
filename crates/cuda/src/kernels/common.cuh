// Shared by all kernel files: half types, 16-byte accesses, and how 256 threads cover a matrix. This file is prepended to each of them;
// there are no other headers. Arithmetic is float, and a value is rounded once when it is stored. No result depends on the order in which
// threads run. The order of sums depends on shapes only: alignment decides how elements are loaded, never which thread adds them.

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void __launch_bounds__(256)
#define ROOMY_KERNEL extern "C" __global__ void __launch_bounds__(256, 2) // without the hint the compiler spills a few registers of these
#define FOR_EACH_TYPE(define) define(float, f32) define(bf16, bf16) define(f16, f16)

struct bf16 { unsigned short bits; };
struct f16 { unsigned short bits; };

#ifdef EMULATE
DEVICE float half_to_float(unsigned short bits) { return (float)__builtin_bit_cast(_Float16, bits); }
DEVICE unsigned short float_to_half(float x) { return __builtin_bit_cast(unsigned short, (_Float16)x); }
#else
DEVICE float half_to_float(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
DEVICE unsigned short float_to_half(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
#endif

// Round to nearest even; adding the rounding increment to a NaN could carry it into infinity, so a NaN is truncated and stays quiet.
DEVICE unsigned short float_to_bfloat(float x) {
    const unsigned u = __float_as_uint(x);
    const unsigned rounded = u + 0x7fffu + ((u >> 16) & 1u);
    return (unsigned short)(((u & 0x7fffffffu) > 0x7f800000u ? (u | 0x400000u) : rounded) >> 16);
}

DEVICE float load(float x) { return x; }
DEVICE float load(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }
DEVICE float load(f16 x) { return half_to_float(x.bits); }
template <class T> DEVICE T store(float x);
template <> DEVICE float store<float>(float x) { return x; }
template <> DEVICE bf16 store<bf16>(float x) { bf16 y; y.bits = float_to_bfloat(x); return y; }
template <> DEVICE f16 store<f16>(float x) { f16 y; y.bits = float_to_half(x); return y; }

// One 32-bit word of a T array, as floats and back.
DEVICE void unpack(float, unsigned word, float* v) { v[0] = __uint_as_float(word); }
DEVICE void unpack(bf16, unsigned word, float* v) { v[0] = __uint_as_float(word << 16); v[1] = __uint_as_float(word & 0xffff0000u); }
DEVICE void unpack(f16, unsigned word, float* v) { v[0] = half_to_float((unsigned short)word); v[1] = half_to_float((unsigned short)(word >> 16)); }
DEVICE unsigned pack(float, const float* v) { return __float_as_uint(v[0]); }
DEVICE unsigned pack(bf16, const float* v) { return float_to_bfloat(v[0]) | ((unsigned)float_to_bfloat(v[1]) << 16); }
DEVICE unsigned pack(f16, const float* v) { return float_to_half(v[0]) | ((unsigned)float_to_half(v[1]) << 16); }

// Elements of T in 16 bytes.
template <class T> struct Lanes { enum { n = 16 / sizeof(T) }; };

// N consecutive elements as floats. WIDE promises that p is aligned to 16 bytes (8 when the run is 8 bytes long).
template <bool WIDE, int N, class T> DEVICE void load_run(const T* p, float (&v)[N]) {
    enum { bytes = N * sizeof(T), per_word = 4 / sizeof(T) };
    if (WIDE && bytes % 16 == 0) {
#pragma unroll
        for (int i = 0; i < bytes / 16; i++) {
            const uint4 w = ((const uint4*)p)[i];
            unpack(T(), w.x, v + (4 * i) * per_word);
            unpack(T(), w.y, v + (4 * i + 1) * per_word);
            unpack(T(), w.z, v + (4 * i + 2) * per_word);
            unpack(T(), w.w, v + (4 * i + 3) * per_word);
        }
    } else if (WIDE && bytes == 8) {
        const uint2 w = *(const uint2*)p;
        unpack(T(), w.x, v);
        unpack(T(), w.y, v + per_word);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = load(p[i]);
    }
}
template <bool WIDE, int N, class T> DEVICE void store_run(T* p, const float (&v)[N]) {
    enum { bytes = N * sizeof(T), per_word = 4 / sizeof(T) };
    if (WIDE && bytes % 16 == 0) {
#pragma unroll
        for (int i = 0; i < bytes / 16; i++) {
            uint4 w;
            w.x = pack(T(), v + (4 * i) * per_word);
            w.y = pack(T(), v + (4 * i + 1) * per_word);
            w.z = pack(T(), v + (4 * i + 2) * per_word);
            w.w = pack(T(), v + (4 * i + 3) * per_word);
            ((uint4*)p)[i] = w;
        }
    } else if (WIDE && bytes == 8) {
        uint2 w;
        w.x = pack(T(), v);
        w.y = pack(T(), v + per_word);
        *(uint2*)p = w;
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) p[i] = store<T>(v[i]);
    }
}

DEVICE bool aligned(const void* a, const void* b = 0, const void* c = 0, const void* d = 0, const void* e = 0) {
    return (((unsigned long long)a | (unsigned long long)b | (unsigned long long)c | (unsigned long long)d | (unsigned long long)e) & 15) == 0;
}

DEVICE long long thread_index() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
DEVICE long long thread_count() { return (long long)gridDim.x * blockDim.x; }

// n / d for n >= 0, d > 0: a 64-bit division costs several times a 32-bit one, which nearly always suffices.
DEVICE long long quotient(long long n, long long d) { return ((n | d) >> 32) == 0 ? (long long)((unsigned)n / (unsigned)d) : n / d; }

DEVICE float sigmoid(float u) { return __fdividef(1.0f, 1.0f + __expf(-u)); }
DEVICE float silu(float u) { return u * sigmoid(u); }
DEVICE float silu_slope(float u) { const float s = sigmoid(u); return s * (1.0f + u * (1.0f - s)); }

// x * gelu_gate(x) is GELU by its approximation with tanh: sqrt(2 / pi) (x + 0.044715 x^3), twice, through the sigmoid
DEVICE float gelu_gate(float x) { return sigmoid(x * (1.5957691216f + 0.0713548163f * x * x)); }
DEVICE float gelu(float x) { return x * gelu_gate(x); }
DEVICE float gelu_slope(float x) { const float s = gelu_gate(x); return s * (1.0f + x * (1.0f - s) * (1.5957691216f + 0.2140644488f * x * x)); }

// The sum over a warp, the same in each of its threads.
DEVICE float warp_sum(float v) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) v += __shfl_xor_sync(0xffffffffu, v, lane);
    return v;
}

// 256 threads over rows of `left` units: up to 256 in a row, and as many rows as fit. Threads with row >= rows idle.
struct Span { int units, rows, unit, row; };
DEVICE Span span(int left) {
    Span s;
    s.units = min(left, 256);
    s.rows = 256 / s.units;
    s.row = (int)threadIdx.x / s.units;
    s.unit = (int)threadIdx.x - s.row * s.units;
    return s;
}

// Adds `rows` rows of `width` numbers in shared memory into the first one, by halves. Includes the barriers before and after.
template <class N> DEVICE void fold_rows(N* sh, int rows, int width) {
    __syncthreads();
    while (rows > 1) {
        const int half = (rows + 1) / 2;
        for (int i = threadIdx.x; i < (rows - half) * width; i += 256) sh[i] += sh[i + half * width];
        __syncthreads();
        rows = half;
    }
}

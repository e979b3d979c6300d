// What kernels find in CUDA: included before their source when the imitation compiles it for the host.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>
#include <utility>

// The toolkit's own types and, for candle's kernels, its half types, which have code for hosts.
#include <vector_types.h>
#ifdef WITH_HALF_TYPES
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <limits>
// Functions of half types that have no code for hosts: computed in float and rounded once, as on a GPU.
#define IMITATION_HALF(name, function) \
    inline __half name(__half x) { return __float2half_rn(function(__half2float(x))); } \
    inline __nv_bfloat16 name(__nv_bfloat16 x) { return __float2bfloat16_rn(function(__bfloat162float(x))); }
IMITATION_HALF(hsqrt, sqrtf)
IMITATION_HALF(hcos, cosf)
IMITATION_HALF(hsin, sinf)
IMITATION_HALF(hlog, logf)
IMITATION_HALF(hexp, expf)
IMITATION_HALF(hrcp, 1.0f /)
IMITATION_HALF(hceil, ceilf)
IMITATION_HALF(hfloor, floorf)
IMITATION_HALF(hrint, rintf)
#define __CUDA_ARCH__ 800
#endif

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __restrict__
#define __global__ __attribute__((hot))
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict
// Blocks run one after another, so their shared memory is one static variable.
#define __shared__ static

// The thread that runs, and what threads of a block do together (threads.cpp).
extern "C" {
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
extern char imitation_shared[];
void imitation_sync_block();
void imitation_sync_warp(unsigned mask);
void imitation_exchange(unsigned mask, const void* own, void* other, unsigned bytes, int lane);
}
enum { warpSize = 32 };

inline void __syncthreads() { imitation_sync_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { imitation_sync_warp(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

inline int imitation_lane() { return (int)((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32); }
template <class T> T imitation_from(unsigned mask, T own, int lane) {
    T other;
    imitation_exchange(mask, &own, &other, sizeof(T), lane);
    return other;
}
template <class T> T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    const int own = imitation_lane();
    return imitation_from(mask, v, own / width * width + lane % width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int bits, int = 32) { return imitation_from(mask, v, imitation_lane() ^ bits); }
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    const int own = imitation_lane(), from = own + (int)by;
    return imitation_from(mask, v, from / width == own / width ? from : own);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    const int own = imitation_lane(), from = own - (int)by;
    return imitation_from(mask, v, from >= own / width * width ? from : own);
}

// Threads run one at a time, so plain accesses are atomic.
template <class T, class V> T atomicAdd(T* at, V v) { const T old = *at; *at = old + (T)v; return old; }
template <class T, class V> T atomicMax(T* at, V v) { const T old = *at; if ((T)v > old) *at = (T)v; return old; }
template <class T, class V> T atomicMin(T* at, V v) { const T old = *at; if ((T)v < old) *at = (T)v; return old; }
template <class T, class V> T atomicExch(T* at, V v) { const T old = *at; *at = (T)v; return old; }
template <class T> T atomicCAS(T* at, T expected, T v) { const T old = *at; if (old == expected) *at = v; return old; }

template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) { using T = std::common_type_t<A, B>; return (T)b < (T)a ? (T)b : (T)a; }
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) { using T = std::common_type_t<A, B>; return (T)a < (T)b ? (T)b : (T)a; }

template <class To, class From> To imitation_bits(From x) { To y; static_assert(sizeof x == sizeof y, ""); memcpy(&y, &x, sizeof y); return y; }
inline unsigned __float_as_uint(float x) { return imitation_bits<unsigned>(x); }
inline int __float_as_int(float x) { return imitation_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return imitation_bits<float>(x); }
inline float __int_as_float(int x) { return imitation_bits<float>(x); }
inline long long __double_as_longlong(double x) { return imitation_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return imitation_bits<double>(x); }
template <class T> T __ldg(const T* at) { return *at; }

// Rounded operations: the host compiler contracts none of them.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }

// How the driver calls a kernel of any signature with a list of addresses of arguments: `entry_NAME`, with their sizes.
struct ImitationEntry {
    void (*call)(void** arguments);
    const unsigned* sizes;
    unsigned count;
};
template <class F, F kernel> struct ImitationKernel;
template <class... A, void (*kernel)(A...)> struct ImitationKernel<void (*)(A...), kernel> {
    static constexpr unsigned sizes[sizeof...(A) + 1] = {sizeof(A)...};
    template <size_t... I> static void spread(void** arguments, std::index_sequence<I...>) { kernel(*(A*)arguments[I]...); }
    static void call(void** arguments) { spread(arguments, std::make_index_sequence<sizeof...(A)>()); }
    static constexpr ImitationEntry entry = {call, sizes, sizeof...(A)};
};
#define IMITATION_ENTRY(name) \
    extern "C" __attribute__((visibility("default"))) const ImitationEntry entry_##name; \
    const ImitationEntry entry_##name = ImitationKernel<decltype(&name), &name>::entry;

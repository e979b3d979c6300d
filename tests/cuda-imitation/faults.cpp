// Programs that are wrong on a GPU: `faults N` must abort with the message of fault N, and `faults` without a number must not.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <cuda.h>
#include <nvrtc.h>

static const char* SOURCE = R"(
extern "C" __global__ void fill(float* x, int n) { for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = 1.0f; }
extern "C" __global__ void copy(const float* x, float* y, int n) { for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i]; }
extern "C" __global__ void reverse(float* x) {
    __shared__ float sh[64];
    sh[threadIdx.x] = x[threadIdx.x] + threadIdx.x;
    __syncthreads();
    x[threadIdx.x] = sh[63 - threadIdx.x];
}
extern "C" __global__ void half_barrier(float*) { if (threadIdx.x % 2) __syncthreads(); else __syncwarp(); }
extern "C" __global__ void warp_sum(float* x) {
    float v = x[threadIdx.x];
    for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
    x[threadIdx.x] = v;
}
)";

#define CHECK(call) \
    if ((call) != 0) { printf("%s failed\n", #call); exit(2); }

static CUstream stream, second;
static CUmodule module;

static void launch_on(CUstream stream, const char* name, std::vector<void*> arguments) {
    CUfunction function;
    CHECK(cuModuleGetFunction(&function, module, name))
    CHECK(cuLaunchKernel(function, 1, 1, 1, 64, 1, 1, 0, stream, arguments.data(), nullptr))
}
static void launch(const char* name, std::vector<void*> arguments) { launch_on(stream, name, arguments); }
// What is queued on `after` from now on comes after what is queued on `before`; returns the event.
static CUevent order(CUstream before, CUstream after) {
    CUevent event;
    CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING))
    CHECK(cuEventRecord(event, before))
    CHECK(cuStreamWaitEvent(after, event, 0))
    return event;
}
static CUdeviceptr allocate(size_t floats) {
    CUdeviceptr at;
    CHECK(cuMemAllocAsync(&at, floats * 4, stream))
    return at;
}
static std::vector<float> values(CUdeviceptr at, size_t n) {
    std::vector<float> all(n);
    CHECK(cuMemcpyDtoHAsync_v2(all.data(), at, n * 4, stream))
    return all;
}
static void expect(bool holds, const char* what) {
    if (!holds) { printf("FAILED: %s\n", what); exit(2); }
}

static void correct() {
    CUdeviceptr x = allocate(64), y = allocate(64);
    int n = 64;
    expect(values(x, 64)[5] != values(x, 64)[5], "new memory holds NaN");
    launch("fill", {&x, &n});
    launch("reverse", {&x});
    expect(values(x, 64)[0] == 64.0f && values(x, 64)[63] == 1.0f, "threads wait for each other at a barrier");
    launch("fill", {&x, &n});
    launch("warp_sum", {&x});
    expect(values(x, 64)[0] == 32.0f && values(x, 64)[40] == 32.0f, "a warp exchanges values");
    launch("copy", {&x, &y, &n});
    // A result is there only for who waits.
    float* pinned;
    CHECK(cuMemHostAlloc((void**)&pinned, 4, 0))
    CHECK(cuMemcpyDtoHAsync_v2(pinned, y, 4, stream))
    expect(pinned[0] != 32.0f, "a copy to page-locked memory is not done at once");
    CHECK(cuStreamSynchronize(stream))
    expect(pinned[0] == 32.0f, "a copy is done after a synchronisation");
    // Two streams that events order, and then the program.
    launch("fill", {&x, &n});
    order(stream, second);
    launch_on(second, "copy", {&x, &y, &n});
    order(second, stream);
    expect(values(y, 64)[40] == 1.0f, "a stream waits for another one");
    launch("fill", {&y, &n});
    CHECK(cuStreamSynchronize(stream))
    launch_on(second, "copy", {&y, &x, &n});
    CHECK(cuCtxSynchronize())
    CHECK(cuMemFreeAsync(x, stream))
    CHECK(cuMemFreeAsync(y, stream))
    CHECK(cuStreamSynchronize(stream))
}

int main(int, char** arguments) {
    CUdevice device;
    CUcontext context, other;
    CHECK(cuInit(0))
    CHECK(cuDeviceGet(&device, 0))
    CHECK(cuDevicePrimaryCtxRetain(&context, 0))
    CHECK(cuDevicePrimaryCtxRetain(&other, 1))
    CHECK(cuCtxSetCurrent(context))
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING))
    CHECK(cuStreamCreate(&second, CU_STREAM_NON_BLOCKING))
    nvrtcProgram program;
    size_t bytes;
    CHECK(nvrtcCreateProgram(&program, SOURCE, nullptr, 0, nullptr, nullptr))
    CHECK(nvrtcCompileProgram(program, 0, nullptr))
    CHECK(nvrtcGetCUBINSize(program, &bytes))
    std::vector<char> code(bytes);
    CHECK(nvrtcGetCUBIN(program, code.data()))
    CHECK(cuModuleLoadData(&module, code.data()))
    CUdeviceptr x = allocate(64), y = allocate(64);
    int n = 64, more = 65;
    switch (arguments[1] ? atoi(arguments[1]) : 0) {
    case 0: correct(); break;
    case 1: launch("fill", {&x, &more}); break;
    case 2:
        CHECK(cuMemFreeAsync(x, stream))
        launch("fill", {&x, &n});
        break;
    case 3:
        CHECK(cuMemFreeAsync(x, stream))
        CHECK(cuMemFreeAsync(x, stream))
        break;
    case 4: {
        x -= 4;
        launch("fill", {&x, &n});
        break;
    }
    case 5: launch("half_barrier", {&x}); break;
    case 6: {
        CHECK(cuCtxSetCurrent(other))
        CUdeviceptr there;
        CHECK(cuMemAlloc_v2(&there, 256))
        CHECK(cuCtxSetCurrent(context))
        launch("fill", {&there, &n});
        break;
    }
    case 7: CHECK(cuMemcpyDtoDAsync_v2(y, x, 257, stream)) break;
    case 8: cuGraphDestroy(nullptr); break;
    case 9:
        launch("fill", {&x, &n});
        launch_on(second, "copy", {&x, &y, &n});
        break;
    case 10: {
        order(stream, second);
        CUdeviceptr late = allocate(64);
        launch_on(second, "fill", {&late, &n});
        break;
    }
    case 11: {
        order(stream, second);
        launch_on(second, "fill", {&x, &n});
        CUevent done;
        CHECK(cuEventCreate(&done, CU_EVENT_DISABLE_TIMING))
        CHECK(cuEventRecord(done, second))
        // It has run by now, but the program does not know.
        expect(cuEventQuery(done) == CUDA_ERROR_NOT_READY, "an event is not done at once");
        CHECK(cuMemFreeAsync(x, stream))
        break;
    }
    }
    CHECK(cuCtxSynchronize())
    printf("done\n");
}

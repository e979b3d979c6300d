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

static void begin(CUstream on = stream) { CHECK(cuStreamBeginCapture_v2(on, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)) }
static CUgraphExec end(unsigned long long flags = 0) {
    CUgraph graph;
    CUgraphExec exec;
    CHECK(cuStreamEndCapture(stream, &graph))
    CHECK(cuGraphInstantiateWithFlags(&exec, graph, flags))
    CHECK(cuGraphDestroy(graph))
    return exec;
}
// A call that makes a recording invalid.
static void refuse(CUresult found, CUresult expected, const char* what, CUstream on = stream) {
    CUgraph graph;
    expect(found == expected, what);
    expect(cuStreamEndCapture(on, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED && !graph, "a recording is invalid after an illegal call");
}

// Runs what is queued on a stream, which the program does not know.
static void run_alone(CUstream on) {
    CUevent done;
    CHECK(cuEventCreate(&done, CU_EVENT_DISABLE_TIMING))
    CHECK(cuEventRecord(done, on))
    expect(cuEventQuery(done) == CUDA_ERROR_NOT_READY, "an event is not done at once");
}

// A graph whose launch fills memory that stays.
static CUgraphExec filling(CUdeviceptr* kept) {
    int n = 64;
    begin();
    *kept = allocate(64);
    launch("fill", {kept, &n});
    return end();
}

static void graphs() {
    int n = 64;
    CUdeviceptr y = allocate(64), kept, none;
    float on_host = 2.0f;
    begin();
    CUdeviceptr x = allocate(64);
    launch("fill", {&x, &n});
    CHECK(cuMemcpyHtoDAsync_v2(x, &on_host, 4, stream))
    launch("copy", {&x, &y, &n});
    CHECK(cuMemFreeAsync(x, stream))
    CUgraphExec exec = end();
    expect(values(y, 64)[0] != values(y, 64)[0], "what is recorded does not run");
    CHECK(cuGraphLaunch(exec, stream))
    expect(values(y, 64)[0] == 2.0f && values(y, 64)[5] == 1.0f, "a launch runs it");
    on_host = 3.0f;
    CHECK(cuGraphLaunch(exec, stream))
    expect(values(y, 64)[0] == 3.0f, "a launch reads the memory of the host");
    expect(cuMemFreeAsync(x, stream) == CUDA_ERROR_INVALID_VALUE, "memory that a graph has freed cannot be freed");
    // Launches of one graph come one after the other, also on two streams.
    CHECK(cuGraphLaunch(exec, second))
    CHECK(cuGraphLaunch(exec, stream))
    expect(values(y, 64)[0] == 3.0f, "a graph is launched on two streams");
    CHECK(cuGraphExecDestroy(exec))

    // Memory that stays.
    exec = filling(&kept);
    begin();
    launch("copy", {&kept, &y, &n});
    CHECK(cuMemFreeAsync(kept, stream))
    CUgraphExec reader = end();
    expect(cuGraphLaunch(reader, stream) == CUDA_ERROR_INVALID_VALUE, "memory that was never allocated cannot be freed");
    CHECK(cuGraphLaunch(exec, stream))
    expect(cuGraphLaunch(exec, stream) == CUDA_ERROR_INVALID_VALUE, "a launch needs the memory of the last one to be freed");
    CHECK(cuGraphLaunch(reader, stream))
    CHECK(cuGraphLaunch(exec, stream))
    CHECK(cuMemFreeAsync(kept, stream))
    CHECK(cuGraphLaunch(exec, stream))
    CHECK(cuGraphLaunch(reader, stream))
    expect(values(y, 64)[63] == 1.0f, "a graph frees memory of another");
    begin();
    kept = allocate(64);
    exec = end(CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    CHECK(cuGraphLaunch(exec, stream))
    CHECK(cuGraphLaunch(exec, stream))

    CUevent event;
    CHECK(cuEventCreate(&event, 0))
    begin();
    refuse(cuStreamSynchronize(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a recording cannot wait");
    begin();
    refuse(cuMemAlloc_v2(&none, 4), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a recording cannot allocate at once");
    begin();
    refuse(cuMemFreeAsync(y, stream), CUDA_ERROR_INVALID_VALUE, "a recording cannot free memory that is not a graph's");
    CUstream blocking;
    CHECK(cuStreamCreate(&blocking, CU_STREAM_DEFAULT))
    begin(blocking);
    refuse(cuMemsetD8Async(y, 0, 4, nullptr), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the default stream would wait for a recording", blocking);
    begin();
    refuse(cuStreamWaitEvent(stream, event, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "a recording cannot wait for work outside of it");
    begin();
    CHECK(cuEventRecord(event, stream))
    end();
    expect(cuEventQuery(event) == CUDA_ERROR_CAPTURED_EVENT, "an event of a recording has no time");
    CHECK(cuMemFreeAsync(y, stream))
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
    CUdeviceptr x = allocate(64), y = allocate(64), kept;
    CUgraphExec exec;
    int n = 64, more = 65;
    switch (arguments[1] ? atoi(arguments[1]) : 0) {
    case 0: correct(), graphs(); break;
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
    case 8: cuGraphClone(nullptr, nullptr); break;
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
        run_alone(second);
        CHECK(cuMemFreeAsync(x, stream))
        break;
    }
    case 12: {
        begin();
        CUdeviceptr freed = allocate(64);
        CHECK(cuMemFreeAsync(freed, stream))
        CHECK(cuGraphLaunch(end(), stream))
        launch("fill", {&freed, &n});
        break;
    }
    case 13:
        begin();
        launch("copy", {&x, &y, &n});
        exec = end();
        order(stream, second);
        CHECK(cuGraphLaunch(exec, stream))
        launch_on(second, "fill", {&x, &n});
        break;
    case 14:
        exec = filling(&kept);
        order(stream, second);
        CHECK(cuGraphLaunch(exec, stream))
        launch_on(second, "fill", {&kept, &n});
        break;
    case 15:
        exec = filling(&kept);
        CHECK(cuGraphLaunch(exec, stream))
        order(stream, second);
        CHECK(cuMemFreeAsync(kept, second))
        run_alone(second);
        CHECK(cuGraphLaunch(exec, stream))
        break;
    }
    CHECK(cuCtxSynchronize())
    printf("done\n");
}

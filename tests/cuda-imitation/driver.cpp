// The driver: devices, contexts, streams, events and copies. A stream runs its work when the program waits for it, so a program that reads results
// or reuses memory too early gets wrong values every time instead of rarely.
#include "streams.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

struct CUevent_st {
    CUctx_st* context;
    // When it was last recorded.
    std::shared_ptr<Moment> moment;
    // The recording that it was last recorded in, or null. Such an event has no time.
    CUgraph captured;
};

namespace {

// Work that waits in a stream; more is run at once, as a GPU would have by then.
enum { MOST_QUEUED = 2048 };

std::recursive_mutex lock;
thread_local CUcontext current = nullptr;

int device_count() { return (int)setting("IMITATION_DEVICES", 1); }
CUctx_st& context_of(int device) {
    auto& all = contexts();
    while ((int)all.size() <= device) all.push_back({(int)all.size(), {}});
    return all[device];
}

void run(CUstream stream, uint64_t until) {
    if (stream->running) return;
    stream->running = true;
    while (stream->done < until) {
        auto [work, body] = std::move(stream->queue.front());
        stream->queue.pop_front();
        run_as(work, body);
        stream->done++;
    }
    stream->running = false;
}

void run_all(CUctx_st& context) {
    for (CUstream stream : context.streams) run(stream, stream->queued);
}

// What the program has waited for, and how often.
Clock waited;
uint64_t waits = 0;

// Runs a stream because the program waits for it: work that is queued from now on comes after it.
void wait_for(CUstream stream, uint64_t until, const Clock& before) {
    run(stream, until);
    merge(waited, before);
    merge(waited, {{stream->number, until}});
    waits++;
}
void wait_for(CUstream stream) { wait_for(stream, stream->queued, *stream->before); }
void wait_for_all(CUctx_st& context) {
    for (CUstream stream : context.streams) wait_for(stream);
}

void comes_after(CUstream stream, const Clock& clock) {
    auto merged = std::make_shared<Clock>(*stream->before);
    merge(*merged, clock);
    stream->before = merged;
}

// What the program has waited for comes before the next work of every stream.
void catch_up(CUstream stream) {
    if (stream->waits == waits) return;
    comes_after(stream, waited);
    stream->waits = waits;
}

CUstream new_stream(CUctx_st& context) {
    static int count = 0;
    auto* stream = new CUstream_st{};
    stream->context = &context, stream->number = count++;
    context.streams.push_back(stream);
    return stream;
}
CUstream default_stream(CUctx_st& context) { return context.streams.empty() ? new_stream(context) : context.streams.front(); }

}  // namespace

CUcontext current_context() { return current; }
CUstream the(CUstream stream) { return stream ? stream : default_stream(*current); }
std::deque<CUctx_st>& contexts() {
    static std::deque<CUctx_st> all;
    return all;
}

void fail(const std::string& message) {
    fprintf(stderr, "imitation of CUDA: %s\n", message.c_str());
    fflush(stderr);
    abort();
}
EXPORT void imitation_missing(const char* name) { fail(std::string("the function ") + name + " is not imitated"); }

long setting(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

int device_of(CUstream stream) { return the(stream)->context->device; }
int current_device() { return current ? current->device : -1; }
std::unique_lock<std::recursive_mutex> locked() { return std::unique_lock(lock); }

void enqueue(CUstream stream, std::function<void()> work) {
    stream = the(stream);
    if (stream->capture) return add_part(stream, {CU_GRAPH_NODE_TYPE_KERNEL, std::move(work), {}});
    catch_up(stream);
    stream->queue.push_back({{stream->number, ++stream->queued, stream->before}, std::move(work)});
    if (stream->queue.size() > MOST_QUEUED || setting("IMITATION_EAGER", 0)) run(stream, stream->queued);
}

Moment next_moment(CUstream stream) {
    catch_up(stream);
    return {stream, stream->queued + 1, {}, stream->before};
}
void wait_in_stream(CUstream stream, const Moment& moment) {
    if (!moment.stream) return;
    comes_after(stream, *moment.before);
    comes_after(stream, {{moment.stream->number, moment.ticket}});
    enqueue(stream, [moment] { run(moment.stream, moment.ticket); });
}

void finish(CUstream stream) {
    if (the(stream)->capture) fail("a library waits for a stream that records");
    run(the(stream), the(stream)->queued);
}

// Calls need a current context, as on a GPU.
#define ENTER                                             \
    auto guard = locked();                                \
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
// Some are illegal while a stream records.
#define EXPECT(check)                                     \
    if (CUresult error = check) return error;

EXPORT CUresult CUDAAPI cuInit(unsigned) { return CUDA_SUCCESS; }
// Functions that are not public: NVIDIA's compiler asks for them, and does without.
EXPORT CUresult CUDAAPI cuGetExportTable(const void** table, const CUuuid*) { return *table = nullptr, CUDA_ERROR_NOT_FOUND; }
EXPORT CUresult CUDAAPI cuDriverGetVersion(int* version) { return *version = CUDA_VERSION, CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuDeviceGetCount(int* count) { return *count = device_count(), CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
    if (ordinal < 0 || ordinal >= device_count()) return CUDA_ERROR_INVALID_DEVICE;
    return *device = ordinal, CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuDeviceGetName(char* name, int length, CUdevice) { return snprintf(name, length, "Imitation"), CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) { return memset(uuid, device + 1, sizeof *uuid), CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) { return *bytes = usage(device).total, CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    const long capability = setting("IMITATION_CAPABILITY", 90);
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = (int)(capability / 10); break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = (int)(capability % 10); break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = (int)setting("IMITATION_POOLS", 1); break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 4; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    default: fail("attribute " + std::to_string(attribute) + " of a device is not imitated");
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    auto guard = locked();
    return *context = &context_of(device), CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuCtxSetCurrent(CUcontext context) { return current = context, CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuCtxGetCurrent(CUcontext* context) { return *context = current, CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuCtxGetDevice(CUdevice* device) {
    ENTER
    return *device = current->device, CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuCtxSynchronize() {
    ENTER
    for (CUstream stream : current->streams) EXPECT(waitable(stream))
    wait_for_all(*current);
    check_zones("a synchronisation");
    return CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuStreamCreate(CUstream* stream, unsigned flags) {
    ENTER
    default_stream(*current);
    *stream = new_stream(*current);
    (*stream)->is_blocking = !(flags & CU_STREAM_NON_BLOCKING);
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuStreamDestroy_v2(CUstream stream) {
    ENTER
    // The object stays, for events that refer to it.
    run(stream, stream->queued);
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuStreamSynchronize(CUstream stream) {
    ENTER
    EXPECT(waitable(stream))
    wait_for(the(stream));
    check_zones("a synchronisation");
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    ENTER
    EXPECT(queueable(stream))
    if (Capture* capture = the(stream)->capture.get()) {
        if (event->captured == capture->graph) return CUDA_SUCCESS;
        // Work outside of the recording.
        return capture->is_invalid = true, CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (event->captured) fail("a second stream of a recording is not imitated");
    wait_in_stream(the(stream), *event->moment);
    return CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuEventCreate(CUevent* event, unsigned) {
    ENTER
    *event = new CUevent_st{current, std::make_shared<Moment>(), nullptr};
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuEventDestroy_v2(CUevent event) { return delete event, CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuEventRecord(CUevent event, CUstream stream) {
    ENTER
    stream = the(stream);
    if (event->context != stream->context) return CUDA_ERROR_INVALID_HANDLE;
    EXPECT(queueable(stream))
    event->captured = stream->capture ? stream->capture->graph : nullptr;
    if (event->captured) return CUDA_SUCCESS;
    event->moment = std::make_shared<Moment>(next_moment(stream));
    enqueue(stream, [moment = event->moment] { moment->time = std::chrono::steady_clock::now(); });
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuEventQuery(CUevent event) {
    ENTER
    EXPECT(safe())
    if (event->captured) return CUDA_ERROR_CAPTURED_EVENT;
    const Moment& m = *event->moment;
    if (!m.stream) return CUDA_SUCCESS;
    if (m.stream->done >= m.ticket) return wait_for(m.stream, m.ticket, *m.before), CUDA_SUCCESS;
    // The next question finds it done.
    run(m.stream, m.ticket);
    return CUDA_ERROR_NOT_READY;
}
EXPORT CUresult CUDAAPI cuEventSynchronize(CUevent event) {
    ENTER
    EXPECT(safe())
    if (event->captured) return CUDA_ERROR_CAPTURED_EVENT;
    const Moment& m = *event->moment;
    if (m.stream) wait_for(m.stream, m.ticket, *m.before);
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuEventElapsedTime_v2(float* milliseconds, CUevent from, CUevent to) {
    ENTER
    for (CUevent event : {from, to}) {
        const Moment& m = *event->moment;
        if (event->captured) return CUDA_ERROR_CAPTURED_EVENT;
        if (!m.stream) return CUDA_ERROR_INVALID_HANDLE;
        if (m.stream->done < m.ticket) return CUDA_ERROR_NOT_READY;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(to->moment->time - from->moment->time).count();
    return CUDA_SUCCESS;
}

// Memory. The default pool of a device is its context.
EXPORT CUresult CUDAAPI cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) { return *pool = (CUmemoryPool)&context_of(device), CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void*) {
    auto guard = locked();
    Usage& u = usage(((CUctx_st*)pool)->device);
    if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH) u.high = u.used;
    else if (attribute != CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) fail("attribute " + std::to_string(attribute) + " of a memory pool is not imitated");
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void* value) {
    auto guard = locked();
    if (attribute != CU_MEMPOOL_ATTR_USED_MEM_HIGH) fail("attribute " + std::to_string(attribute) + " of a memory pool is not imitated");
    const uint64_t high = usage(((CUctx_st*)pool)->device).high;
    return memcpy(value, &high, sizeof high), CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemGetInfo_v2(size_t* free, size_t* total) {
    ENTER
    const Usage& u = usage(current->device);
    return *free = u.total - u.used - u.graphs, *total = u.total, CUDA_SUCCESS;
}
static CUresult allocate_now(CUdeviceptr* at, size_t bytes) {
    if (!(*at = allocate(current->device, bytes))) {
        run_all(*current);
        *at = allocate(current->device, bytes);
    }
    return *at ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
EXPORT CUresult CUDAAPI cuMemAlloc_v2(CUdeviceptr* at, size_t bytes) {
    ENTER
    EXPECT(safe())
    return allocate_now(at, bytes);
}
EXPORT CUresult CUDAAPI cuMemAllocAsync(CUdeviceptr* at, size_t bytes, CUstream stream) {
    ENTER
    if (!setting("IMITATION_POOLS", 1)) return CUDA_ERROR_NOT_SUPPORTED;
    if (the(stream)->context != current) return CUDA_ERROR_INVALID_HANDLE;
    EXPECT(queueable(stream))
    if (the(stream)->capture) return allocate_in_graph(at, bytes, the(stream));
    const CUresult result = allocate_now(at, bytes);
    if (result != CUDA_SUCCESS) return result;
    enqueue(stream, [] {});
    born(*at, the(stream)->number, the(stream)->queued);
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemFree_v2(CUdeviceptr at) {
    ENTER
    EXPECT(safe())
    wait_for_all(*current);
    bool is_live = false;
    if (is_of_graph(at, &is_live)) {
        // Memory of a graph must be allocated by a launch.
        if (!is_live) return CUDA_ERROR_INVALID_VALUE;
        return forget_launch(at), retire(at), CUDA_SUCCESS;
    }
    release(current->device, at);
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemFreeAsync(CUdeviceptr at, CUstream stream) {
    ENTER
    EXPECT(queueable(stream))
    if (the(stream)->capture) return free_in_graph(at, the(stream));
    bool is_live = false;
    if (is_of_graph(at, &is_live)) {
        if (!is_live) return CUDA_ERROR_INVALID_VALUE;
        forget_launch(at);
        enqueue(stream, [at] { retire(at); });
        return CUDA_SUCCESS;
    }
    const int device = device_of(stream);
    enqueue(stream, [device, at] { release(device, at); });
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemHostAlloc(void** at, size_t bytes, unsigned) {
    ENTER
    EXPECT(safe())
    *at = (void*)allocate(current->device, bytes, true);
    return *at ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
EXPORT CUresult CUDAAPI cuMemFreeHost(void* at) {
    ENTER
    EXPECT(safe())
    // Copies from or to it that are queued run first on a GPU only if the program waits for them, and so here.
    release(current->device, (uint64_t)at, true);
    return CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
    ENTER
    EXPECT(queueable(stream))
    const int device = device_of(stream);
    // A graph reads the host's memory at each launch, whatever is in it by then.
    if (the(stream)->capture) {
        add_part(the(stream), {CU_GRAPH_NODE_TYPE_MEMCPY,
                               [=] {
                                   check_range("a copy to the device", device, to, bytes);
                                   memcpy((void*)to, from, bytes);
                               },
                               copy_of(CU_MEMORYTYPE_HOST, from, CU_MEMORYTYPE_DEVICE, (void*)to, bytes)});
        return CUDA_SUCCESS;
    }
    if (is_pinned(from)) {
        enqueue(stream, [=] {
            if (!is_pinned(from)) fail("page-locked memory is freed before its copy to the device has run");
            check_range("a copy to the device", device, to, bytes);
            memcpy((void*)to, from, bytes);
        });
        return CUDA_SUCCESS;
    }
    // Other memory is read before the call returns.
    auto copy = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + bytes);
    enqueue(stream, [=] {
        check_range("a copy to the device", device, to, bytes);
        memcpy((void*)to, copy->data(), bytes);
    });
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER
    const int device = device_of(stream);
    const bool pinned = is_pinned(to);
    EXPECT(queueable(stream))
    if (the(stream)->capture) {
        add_part(the(stream), {CU_GRAPH_NODE_TYPE_MEMCPY,
                               [=] {
                                   check_range("a copy from the device", device, from, bytes);
                                   memcpy(to, (const void*)from, bytes);
                               },
                               copy_of(CU_MEMORYTYPE_DEVICE, (void*)from, CU_MEMORYTYPE_HOST, to, bytes)});
        return CUDA_SUCCESS;
    }
    enqueue(stream, [=] {
        if (pinned && !is_pinned(to)) fail("page-locked memory is freed before its copy from the device has run");
        check_range("a copy from the device", device, from, bytes);
        memcpy(to, (const void*)from, bytes);
    });
    // Other memory is written before the call returns.
    if (!pinned) wait_for(the(stream));
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER
    EXPECT(queueable(stream))
    const int device = device_of(stream);
    const auto work = [=] {
        check_range("a copy on the device", device, from, bytes);
        check_range("a copy on the device", device, to, bytes);
        memmove((void*)to, (const void*)from, bytes);
    };
    if (the(stream)->capture)
        add_part(the(stream), {CU_GRAPH_NODE_TYPE_MEMCPY, work, copy_of(CU_MEMORYTYPE_DEVICE, (void*)from, CU_MEMORYTYPE_DEVICE, (void*)to, bytes)});
    else
        enqueue(stream, work);
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    ENTER
    EXPECT(queueable(stream))
    const int device = device_of(stream);
    const auto work = [=] {
        check_range("a fill", device, to, bytes);
        memset((void*)to, value, bytes);
    };
    if (the(stream)->capture) add_part(the(stream), {CU_GRAPH_NODE_TYPE_MEMSET, work, {}});
    else enqueue(stream, work);
    return CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuGetErrorName(CUresult error, const char** name) {
    switch (error) {
    case CUDA_ERROR_OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case CUDA_ERROR_NOT_READY: *name = "CUDA_ERROR_NOT_READY"; break;
    case CUDA_ERROR_INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
    case CUDA_ERROR_INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
    case CUDA_ERROR_INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case CUDA_ERROR_ILLEGAL_STATE: *name = "CUDA_ERROR_ILLEGAL_STATE"; break;
    case CUDA_ERROR_CAPTURED_EVENT: *name = "CUDA_ERROR_CAPTURED_EVENT"; break;
    case CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
    case CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: *name = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"; break;
    case CUDA_ERROR_STREAM_CAPTURE_IMPLICIT: *name = "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"; break;
    case CUDA_ERROR_STREAM_CAPTURE_ISOLATION: *name = "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"; break;
    case CUDA_ERROR_NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
    default: *name = "CUDA_ERROR"; break;
    }
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuGetErrorString(CUresult error, const char** text) {
    if (error == CUDA_ERROR_OUT_OF_MEMORY) return *text = "out of memory", CUDA_SUCCESS;
    return cuGetErrorName(error, text);
}

// The driver: devices, contexts, streams, events and copies. A stream runs its work when the program waits for it, so a program that reads results
// or reuses memory too early gets wrong values every time instead of rarely.
#include "imitation.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

struct CUctx_st {
    int device;
    std::vector<CUstream> streams;
};

struct CUstream_st {
    CUctx_st* context;
    int number;
    std::deque<std::pair<Work, std::function<void()>>> queue;
    uint64_t queued = 0, done = 0;
    bool running = false;
    // What comes before the next work, and which of the program's waits it includes.
    std::shared_ptr<const Clock> before = std::make_shared<Clock>();
    uint64_t waits = 0;
};

// The moment in its stream at which an event was last recorded.
struct Moment {
    CUstream stream = nullptr;
    uint64_t ticket = 0;
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<const Clock> before;
};
struct CUevent_st {
    CUctx_st* context;
    std::shared_ptr<Moment> moment;
};

namespace {

// Work that waits in a stream; more is run at once, as a GPU would have by then.
enum { MOST_QUEUED = 2048 };

std::recursive_mutex lock;
thread_local CUcontext current = nullptr;

int device_count() { return (int)setting("IMITATION_DEVICES", 1); }
CUctx_st& context_of(int device) {
    static std::deque<CUctx_st> all;
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

// The default stream, without a stream.
CUstream the(CUstream stream) { return stream ? stream : default_stream(*current); }

}  // namespace

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
    catch_up(stream);
    stream->queue.push_back({{stream->number, ++stream->queued, stream->before}, std::move(work)});
    if (stream->queue.size() > MOST_QUEUED || setting("IMITATION_EAGER", 0)) run(stream, stream->queued);
}

void finish(CUstream stream) { run(the(stream), the(stream)->queued); }

// Calls need a current context, as on a GPU.
#define ENTER                                             \
    auto guard = locked();                                \
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;

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
    wait_for_all(*current);
    check_zones("a synchronisation");
    return CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuStreamCreate(CUstream* stream, unsigned) {
    ENTER
    default_stream(*current);
    return *stream = new_stream(*current), CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuStreamDestroy_v2(CUstream stream) {
    ENTER
    // The object stays, for events that refer to it.
    run(stream, stream->queued);
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuStreamSynchronize(CUstream stream) {
    ENTER
    wait_for(the(stream));
    check_zones("a synchronisation");
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuStreamIsCapturing(CUstream, CUstreamCaptureStatus* status) { return *status = CU_STREAM_CAPTURE_STATUS_NONE, CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    ENTER
    const Moment moment = *event->moment;
    if (!moment.stream) return CUDA_SUCCESS;
    comes_after(the(stream), *moment.before);
    comes_after(the(stream), {{moment.stream->number, moment.ticket}});
    enqueue(stream, [moment] { run(moment.stream, moment.ticket); });
    return CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuEventCreate(CUevent* event, unsigned) {
    ENTER
    *event = new CUevent_st{current, std::make_shared<Moment>()};
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuEventDestroy_v2(CUevent event) { return delete event, CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuEventRecord(CUevent event, CUstream stream) {
    ENTER
    stream = the(stream);
    if (event->context != stream->context) return CUDA_ERROR_INVALID_HANDLE;
    catch_up(stream);
    auto moment = std::make_shared<Moment>(Moment{stream, stream->queued + 1, {}, stream->before});
    event->moment = moment;
    enqueue(stream, [moment] { moment->time = std::chrono::steady_clock::now(); });
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuEventQuery(CUevent event) {
    ENTER
    const Moment& m = *event->moment;
    if (!m.stream) return CUDA_SUCCESS;
    if (m.stream->done >= m.ticket) return wait_for(m.stream, m.ticket, *m.before), CUDA_SUCCESS;
    // The next question finds it done.
    run(m.stream, m.ticket);
    return CUDA_ERROR_NOT_READY;
}
EXPORT CUresult CUDAAPI cuEventSynchronize(CUevent event) {
    ENTER
    const Moment& m = *event->moment;
    if (m.stream) wait_for(m.stream, m.ticket, *m.before);
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuEventElapsedTime_v2(float* milliseconds, CUevent from, CUevent to) {
    ENTER
    for (CUevent event : {from, to}) {
        const Moment& m = *event->moment;
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
    return *free = u.total - u.used, *total = u.total, CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemAlloc_v2(CUdeviceptr* at, size_t bytes) {
    ENTER
    if (!(*at = allocate(current->device, bytes))) {
        run_all(*current);
        *at = allocate(current->device, bytes);
    }
    return *at ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
EXPORT CUresult CUDAAPI cuMemAllocAsync(CUdeviceptr* at, size_t bytes, CUstream stream) {
    ENTER
    if (!setting("IMITATION_POOLS", 1)) return CUDA_ERROR_NOT_SUPPORTED;
    if (the(stream)->context != current) return CUDA_ERROR_INVALID_HANDLE;
    const CUresult result = cuMemAlloc_v2(at, bytes);
    if (result != CUDA_SUCCESS) return result;
    enqueue(stream, [] {});
    born(*at, the(stream)->number, the(stream)->queued);
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemFree_v2(CUdeviceptr at) {
    ENTER
    wait_for_all(*current);
    release(current->device, at);
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemFreeAsync(CUdeviceptr at, CUstream stream) {
    ENTER
    const int device = device_of(stream);
    enqueue(stream, [device, at] { release(device, at); });
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemHostAlloc(void** at, size_t bytes, unsigned) {
    ENTER
    *at = (void*)allocate(current->device, bytes, true);
    return *at ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
EXPORT CUresult CUDAAPI cuMemFreeHost(void* at) {
    ENTER
    // Copies from or to it that are queued run first on a GPU only if the program waits for them, and so here.
    release(current->device, (uint64_t)at, true);
    return CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
    ENTER
    const int device = device_of(stream);
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
    const int device = device_of(stream);
    enqueue(stream, [=] {
        check_range("a copy on the device", device, from, bytes);
        check_range("a copy on the device", device, to, bytes);
        memmove((void*)to, (const void*)from, bytes);
    });
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    ENTER
    const int device = device_of(stream);
    enqueue(stream, [=] {
        check_range("a fill", device, to, bytes);
        memset((void*)to, value, bytes);
    });
    return CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuGetErrorName(CUresult error, const char** name) {
    switch (error) {
    case CUDA_ERROR_OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case CUDA_ERROR_NOT_READY: *name = "CUDA_ERROR_NOT_READY"; break;
    case CUDA_ERROR_INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
    case CUDA_ERROR_INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
    case CUDA_ERROR_NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
    default: *name = "CUDA_ERROR"; break;
    }
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuGetErrorString(CUresult error, const char** text) {
    if (error == CUDA_ERROR_OUT_OF_MEMORY) return *text = "out of memory", CUDA_SUCCESS;
    return cuGetErrorName(error, text);
}

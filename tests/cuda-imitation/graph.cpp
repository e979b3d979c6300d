// Graphs: streams that record, and launches of what they recorded. What NVIDIA's driver forbids during a recording makes it invalid here, too. A launch
// is one piece of work of its stream, and its parts are ordered with other streams as that is.
#include "streams.h"

#include <cstring>
#include <map>

namespace {

// Addresses of the allocations of graphs, and whether a launch has allocated them and nothing has freed them, in the order of the calls.
std::map<uint64_t, bool> memory;

CUresult invalidate(CUstream stream, CUresult error) {
    stream->capture->is_invalid = true;
    return error;
}

bool records(CUstream stream) { return stream->capture != nullptr; }

const CUgraphNode_st* last_kernel(const Parts& parts) {
    const CUgraphNode_st* last = nullptr;
    for (const CUgraphNode_st& node : parts.nodes)
        if (node.type == CU_GRAPH_NODE_TYPE_KERNEL) last = &node;
    return last;
}

}  // namespace

#define ENTER                                                 \
    auto guard = locked();                                    \
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;

Parts::~Parts() {
    for (const uint64_t at : allocated) {
        // What is allocated outlives its graph.
        if (memory.at(at)) continue;
        memory.erase(at);
        discard(at);
    }
}

CUresult queueable(CUstream stream) {
    CUstream queue = the(stream);
    if (records(queue)) return queue->capture->is_invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
    CUcontext context = queue->context;
    if (queue != context->streams.front()) return CUDA_SUCCESS;
    // Work on the default stream would wait for the streams that are not independent of it.
    for (CUstream other : context->streams)
        if (records(other) && other->is_blocking) return invalidate(other, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    return CUDA_SUCCESS;
}

CUresult waitable(CUstream stream) {
    if (CUresult error = queueable(stream)) return error;
    stream = the(stream);
    return records(stream) ? invalidate(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) : CUDA_SUCCESS;
}

CUresult safe() {
    for (CUctx_st& context : contexts())
        for (CUstream stream : context.streams) {
            if (!records(stream) || stream->capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
            if (stream->capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL || stream->capture->thread == std::this_thread::get_id())
                return invalidate(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
    return CUDA_SUCCESS;
}

void add_part(CUstream stream, CUgraphNode_st node) {
    if (!stream->capture->is_invalid) stream->capture->graph->parts->nodes.push_back(std::move(node));
}

CUDA_MEMCPY3D copy_of(CUmemorytype from, const void* at, CUmemorytype to, const void* end, size_t bytes) {
    CUDA_MEMCPY3D copy;
    memset(&copy, 0, sizeof copy);
    copy.srcMemoryType = from;
    copy.dstMemoryType = to;
    if (from == CU_MEMORYTYPE_HOST) copy.srcHost = at;
    else copy.srcDevice = (CUdeviceptr)at;
    if (to == CU_MEMORYTYPE_HOST) copy.dstHost = (void*)end;
    else copy.dstDevice = (CUdeviceptr)end;
    copy.WidthInBytes = bytes;
    copy.Height = copy.Depth = 1;
    return copy;
}

CUresult allocate_in_graph(CUdeviceptr* at, size_t bytes, CUstream stream) {
    const int device = device_of(stream);
    const uint64_t made = reserve(device, bytes);
    if (!made) return CUDA_ERROR_OUT_OF_MEMORY;
    memory[made] = false;
    stream->capture->graph->parts->allocated.insert(made);
    add_part(stream, {CU_GRAPH_NODE_TYPE_MEM_ALLOC, [made] { revive(made); }, {}});
    return *at = made, CUDA_SUCCESS;
}

CUresult free_in_graph(CUdeviceptr at, CUstream stream) {
    Parts& parts = *stream->capture->graph->parts;
    // Only a graph's allocation can be freed by a graph, and once.
    const bool is_own = parts.allocated.count(at);
    if (!memory.count(at) || !(is_own ? parts.freed : parts.others).insert(at).second) return invalidate(stream, CUDA_ERROR_INVALID_VALUE);
    add_part(stream, {CU_GRAPH_NODE_TYPE_MEM_FREE, [at] { retire(at); }, {}});
    return CUDA_SUCCESS;
}

bool is_of_graph(CUdeviceptr at, bool* is_live) {
    auto found = memory.find(at);
    if (found == memory.end()) return false;
    return *is_live = found->second, true;
}

void forget_launch(CUdeviceptr at) { memory.at(at) = false; }

EXPORT CUresult CUDAAPI cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
    ENTER
    if (!stream || stream == stream->context->streams.front()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (records(stream)) return CUDA_ERROR_ILLEGAL_STATE;
    stream->capture = std::make_unique<Capture>(Capture{new CUgraph_st, mode, std::this_thread::get_id()});
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuStreamEndCapture(CUstream stream, CUgraph* graph) {
    ENTER
    *graph = nullptr;
    if (!stream || !records(stream)) return CUDA_ERROR_ILLEGAL_STATE;
    const Capture& capture = *stream->capture;
    if (capture.mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture.thread != std::this_thread::get_id())
        return invalidate(stream, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    const std::unique_ptr<Capture> ended = std::move(stream->capture);
    if (ended->is_invalid) return delete ended->graph, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    return *graph = ended->graph, CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
    ENTER
    stream = the(stream);
    *status = !records(stream)                ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->capture->is_invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                              : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph, unsigned long long flags) {
    auto guard = locked();
    if (flags & ~(unsigned long long)(CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY))
        return CUDA_ERROR_INVALID_VALUE;
    const bool has_memory = !graph->parts->allocated.empty() || !graph->parts->others.empty();
    if (graph->is_instantiated && has_memory) return CUDA_ERROR_NOT_SUPPORTED;
    graph->is_instantiated = true;
    return *exec = new CUgraphExec_st{graph->parts, (flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH) != 0}, CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuGraphDestroy(CUgraph graph) {
    auto guard = locked();
    if (!graph) return CUDA_ERROR_INVALID_VALUE;
    return delete graph, CUDA_SUCCESS;
}
// Launches that are queued run first.
EXPORT CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec exec) {
    auto guard = locked();
    if (!exec) return CUDA_ERROR_INVALID_VALUE;
    return delete exec, CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    ENTER
    if (CUresult error = waitable(stream)) return error;
    // A launch also comes after the last one of its graph, on whatever stream that was.
    wait_in_stream(the(stream), exec->last_launch);
    Parts& parts = *exec->parts;
    std::vector<uint64_t> kept;
    for (const uint64_t at : parts.allocated)
        if (!parts.freed.count(at)) kept.push_back(at);
    // Memory of the last launch that nothing has freed.
    for (const uint64_t at : kept) {
        if (!memory.at(at)) continue;
        if (!exec->frees_on_launch) return CUDA_ERROR_INVALID_VALUE;
        memory.at(at) = false;
        enqueue(stream, [at] { retire(at); });
    }
    for (const uint64_t at : parts.others) {
        auto found = memory.find(at);
        if (found == memory.end() || !found->second) return CUDA_ERROR_INVALID_VALUE;
        found->second = false;
    }
    for (const uint64_t at : kept) memory.at(at) = true;
    exec->last_launch = next_moment(the(stream));
    enqueue(stream, [parts = exec->parts] {
        const CUgraphNode_st* left_out = setting("IMITATION_STALE_GRAPHS", 0) ? last_kernel(*parts) : nullptr;
        for (CUgraphNode_st& node : parts->nodes)
            if (&node != left_out) node.work();
    });
    return CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, size_t* count) {
    auto guard = locked();
    std::deque<CUgraphNode_st>& all = graph->parts->nodes;
    if (!nodes) return *count = all.size(), CUDA_SUCCESS;
    for (size_t i = 0; i < *count; i++) nodes[i] = i < all.size() ? &all[i] : nullptr;
    if (*count > all.size()) *count = all.size();
    return CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType* type) { return *type = node->type, CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D* copy) {
    if (node->type != CU_GRAPH_NODE_TYPE_MEMCPY) return CUDA_ERROR_INVALID_VALUE;
    return *copy = node->copy, CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuDeviceGraphMemTrim(CUdevice) { return CUDA_SUCCESS; }
EXPORT CUresult CUDAAPI cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attribute, void* value) {
    auto guard = locked();
    if (attribute != CU_GRAPH_MEM_ATTR_USED_MEM_HIGH) fail("attribute " + std::to_string(attribute) + " of the memory of graphs is not imitated");
    const uint64_t high = usage(device).graph_high;
    return memcpy(value, &high, sizeof high), CUDA_SUCCESS;
}
EXPORT CUresult CUDAAPI cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attribute, void*) {
    auto guard = locked();
    if (attribute != CU_GRAPH_MEM_ATTR_USED_MEM_HIGH) fail("attribute " + std::to_string(attribute) + " of the memory of graphs is not imitated");
    usage(device).graph_high = usage(device).graph_used;
    return CUDA_SUCCESS;
}

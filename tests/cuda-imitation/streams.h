// Contexts, streams and graphs, for driver.cpp and graph.cpp.
#pragma once
#include <chrono>
#include <deque>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "imitation.h"

struct CUctx_st {
    int device;
    std::vector<CUstream> streams;
};

// A moment in a stream: that of this work, and what comes before it.
struct Moment {
    CUstream stream = nullptr;
    uint64_t ticket = 0;
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<const Clock> before;
};

// A part of a graph, which runs at every launch.
struct CUgraphNode_st {
    CUgraphNodeType type;
    std::function<void()> work;
    CUDA_MEMCPY3D copy;
};

// The parts of a graph, and the memory that they allocate and free. It lives until the graph is destroyed and its last launch is over.
struct Parts {
    std::deque<CUgraphNode_st> nodes;
    // Allocated here; of these, freed here; and freed here, but allocated by another graph.
    std::set<uint64_t> allocated, freed, others;
    ~Parts();
};
struct CUgraph_st {
    std::shared_ptr<Parts> parts = std::make_shared<Parts>();
    bool is_instantiated = false;
};
struct CUgraphExec_st {
    std::shared_ptr<Parts> parts;
    bool frees_on_launch;
    Moment last_launch = {};
};

// A stream that records.
struct Capture {
    CUgraph graph;
    CUstreamCaptureMode mode;
    std::thread::id thread;
    bool is_invalid = false;
};

struct CUstream_st {
    CUctx_st* context;
    // Whether it waits for the default stream, and that for it.
    bool is_blocking = true;
    int number = 0;
    std::deque<std::pair<Work, std::function<void()>>> queue = {};
    uint64_t queued = 0, done = 0;
    bool running = false;
    // What comes before the next work, and which of the program's waits it includes.
    std::shared_ptr<const Clock> before = std::make_shared<Clock>();
    uint64_t waits = 0;
    std::unique_ptr<Capture> capture = nullptr;
};

// driver.cpp
CUcontext current_context();
// The default stream, without a stream.
CUstream the(CUstream stream);
std::deque<CUctx_st>& contexts();
// That of the next work of a stream.
Moment next_moment(CUstream stream);
// What is queued from now on comes after a moment of another stream.
void wait_in_stream(CUstream stream, const Moment& moment);

// graph.cpp: each is an error where a call is illegal because a stream records, which is then invalid.
// Work on a stream.
CUresult queueable(CUstream stream);
// A call that waits for a stream.
CUresult waitable(CUstream stream);
// A call that may wait for all streams.
CUresult safe();
// Work of a stream that records.
void add_part(CUstream stream, CUgraphNode_st node);
CUDA_MEMCPY3D copy_of(CUmemorytype from, const void* at, CUmemorytype to, const void* end, size_t bytes);
CUresult allocate_in_graph(CUdeviceptr* at, size_t bytes, CUstream stream);
CUresult free_in_graph(CUdeviceptr at, CUstream stream);
// Whether this is the address of a graph's allocation; `is_live` tells whether a launch has allocated it.
bool is_of_graph(CUdeviceptr at, bool* is_live);
// Frees it outside of a graph.
void forget_launch(CUdeviceptr at);

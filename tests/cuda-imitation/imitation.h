// What the parts of the imitation share. Device memory is host memory, and the work of a stream waits until the program asks for its results.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <cuda.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Prints a message and aborts: what the program did would fail or be wrong on a GPU.
[[noreturn]] void fail(const std::string& message);

// The text of an environment variable, or this number.
long setting(const char* name, long otherwise);

// The layout of `entry_NAME` in a library of kernels (kernel.h).
struct Entry {
    void (*call)(void** arguments);
    const unsigned* sizes;
    unsigned count;
};

// memory.cpp: everything that was allocated, with red zones around it.
uint64_t allocate(int device, size_t bytes, bool on_host = false);
void release(int device, uint64_t at, bool on_host = false);
// Memory of a graph, which is freed between its launches: reserved when it is recorded, allocated and freed by launches, and discarded with the graph.
uint64_t reserve(int device, size_t bytes);
void revive(uint64_t at);
void retire(uint64_t at);
void discard(uint64_t at);
// Aborts unless these bytes are in one live allocation of the device.
void check_range(const char* what, int device, uint64_t at, size_t bytes);
// Aborts if a value is an address in freed memory or in that of another device.
void check_argument(const char* kernel, int device, uint64_t value);
// Aborts if a red zone was written to.
void check_zones(const std::string& after);
bool is_pinned(const void* at);
// Says that the memory at `at` is there for work `ticket` of a stream and for what comes after.
void born(uint64_t at, int stream, uint64_t ticket);
// Memory of graphs counts apart: what is reserved for them, and what their launches have allocated.
struct Usage { size_t used, high, total, graphs, graph_used, graph_high; };
Usage& usage(int device);

// order.cpp: which work surely comes before which.
using Clock = std::map<int, uint64_t>;
// The work that runs: its number in its stream, and for each stream how much of it comes before.
struct Work {
    int stream;
    uint64_t ticket;
    std::shared_ptr<const Clock> before;
};
// Null outside of streams.
const Work* running();
// Runs `body` as this work.
void run_as(const Work& work, const std::function<void()>& body);
void merge(Clock& clock, const Clock& other);
// Notes that the work which runs uses memory with these earlier uses, the last of each stream; false if an earlier one may run at the same time.
bool note_use(Clock& uses);

// driver.cpp: queues.
int device_of(CUstream stream);
// That of the calling thread; -1 without one.
int current_device();
// Held by every call.
std::unique_lock<std::recursive_mutex> locked();
void enqueue(CUstream stream, std::function<void()> work);
// Runs all that waits.
void finish(CUstream stream);

// modules.cpp: where this library is.
std::string own_folder();

// threads.cpp: runs a grid of blocks.
void run_grid(const std::string& name, const Entry& entry, void** arguments, const unsigned (&grid)[3], const unsigned (&block)[3], unsigned shared_bytes);

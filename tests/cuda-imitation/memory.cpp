// Memory: red zones around every allocation, NaNs in what is new or freed, and what was freed kept for a while, so that a later access shows.
#include "imitation.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <sstream>

namespace {

enum : size_t { ZONE = 256, KEPT = 256 << 20 };
enum : unsigned char { FENCE = 0xa5, NAN_BYTES = 0xff };

struct Allocation {
    char* base;
    size_t bytes;
    int device;
    bool freed, on_host, of_graph;
    // The last one of each stream.
    Clock uses;
};

std::map<uint64_t, Allocation> all;
std::deque<uint64_t> freed;
size_t freed_bytes = 0;

size_t rounded(size_t bytes) { return (bytes + ZONE - 1) / ZONE * ZONE; }

std::string describe(const Allocation& allocation) {
    std::ostringstream text;
    text << allocation.bytes << " bytes of " << (allocation.on_host ? "page-locked memory" : "device " + std::to_string(allocation.device));
    return text.str();
}

bool filled(const char* from, const char* to, unsigned char value) {
    for (; from < to; from++)
        if ((unsigned char)*from != value) return false;
    return true;
}

void check_zone(const Allocation& a, const std::string& after) {
    const char* data = a.base + ZONE;
    if (!filled(a.base, data, FENCE)) fail("a write before the start of " + describe(a) + ", found after " + after);
    if (!filled(data + a.bytes, data + rounded(a.bytes) + ZONE, FENCE)) fail("a write past the end of " + describe(a) + ", found after " + after);
}

// The allocation, live or freed, with this address.
Allocation* find(uint64_t at, uint64_t* start = nullptr) {
    auto next = all.upper_bound(at);
    if (next == all.begin()) return nullptr;
    --next;
    if (at >= next->first + std::max<size_t>(next->second.bytes, 1)) return nullptr;
    if (start) *start = next->first;
    return &next->second;
}

void use(const std::string& what, Allocation& a) {
    if (!note_use(a.uses)) fail(what + ": " + describe(a) + " are used on two streams, and no event orders them");
}

void check_freed(const Allocation& a) {
    if (!filled(a.base + ZONE, a.base + ZONE + a.bytes, NAN_BYTES)) fail("a write to " + describe(a) + " that had been freed");
}

void forget_oldest() {
    const uint64_t at = freed.front();
    freed.pop_front();
    const Allocation a = all.at(at);
    check_freed(a);
    freed_bytes -= a.bytes;
    all.erase(at);
    std::free(a.base);
}

}  // namespace

Usage& usage(int device) {
    static std::map<int, Usage> of_device;
    auto [entry, is_new] = of_device.try_emplace(device, Usage{});
    if (is_new) entry->second.total = (size_t)setting("IMITATION_MEGABYTES", 8192) << 20;
    return entry->second;
}

// New memory with red zones and NaNs.
static char* fenced(size_t bytes) {
    char* base = (char*)std::aligned_alloc(ZONE, ZONE + rounded(bytes) + ZONE);
    if (!base) return nullptr;
    memset(base, FENCE, ZONE);
    memset(base + ZONE, NAN_BYTES, bytes);
    memset(base + ZONE + bytes, FENCE, rounded(bytes) - bytes + ZONE);
    return base;
}

// 0 if the device has no room for it.
uint64_t allocate(int device, size_t bytes, bool on_host) {
    Usage& u = usage(device);
    if (!on_host && u.used + u.graphs + bytes > u.total) return 0;
    char* base = fenced(bytes);
    if (!base) return 0;
    if (!on_host) {
        u.used += bytes;
        u.high = std::max(u.high, u.used);
    }
    all[(uint64_t)(base + ZONE)] = {base, bytes, device, false, on_host, false, {}};
    return (uint64_t)(base + ZONE);
}

uint64_t reserve(int device, size_t bytes) {
    Usage& u = usage(device);
    char* base = u.used + u.graphs + bytes > u.total ? nullptr : fenced(bytes);
    if (!base) return 0;
    u.graphs += bytes;
    all[(uint64_t)(base + ZONE)] = {base, bytes, device, true, false, true, {}};
    return (uint64_t)(base + ZONE);
}

void revive(uint64_t at) {
    Allocation& a = all.at(at);
    if (!a.freed) fail(describe(a) + " of a graph are allocated twice");
    check_freed(a);
    use("an allocation of a graph", a);
    a.freed = false;
    Usage& u = usage(a.device);
    u.graph_used += a.bytes;
    u.graph_high = std::max(u.graph_high, u.graph_used);
}

void retire(uint64_t at) {
    Allocation& a = all.at(at);
    if (a.freed) fail(describe(a) + " are freed twice");
    check_zone(a, "it was freed");
    use("a release", a);
    a.freed = true;
    memset(a.base + ZONE, NAN_BYTES, a.bytes);
    usage(a.device).graph_used -= a.bytes;
}

void discard(uint64_t at) {
    const Allocation a = all.at(at);
    check_freed(a);
    usage(a.device).graphs -= a.bytes;
    all.erase(at);
    std::free(a.base);
}

void release(int device, uint64_t at, bool on_host) {
    auto found = all.find(at);
    if (found == all.end()) fail("memory is freed that was never allocated");
    Allocation& a = found->second;
    if (a.of_graph) fail(describe(a) + " of a graph are freed as if they were not");
    if (a.freed) fail(describe(a) + " are freed twice");
    if (a.device != device || a.on_host != on_host) fail(describe(a) + " are freed as memory of device " + std::to_string(device));
    check_zone(a, "it was freed");
    use("a release", a);
    a.freed = true;
    memset(a.base + ZONE, NAN_BYTES, a.bytes);
    if (!on_host) usage(device).used -= a.bytes;
    freed.push_back(at);
    freed_bytes += a.bytes;
    while (freed_bytes > KEPT || freed.size() > 4096) forget_oldest();
}

void check_range(const char* what, int device, uint64_t at, size_t bytes) {
    if (bytes == 0) return;
    uint64_t start = 0;
    Allocation* a = find(at, &start);
    if (!a || a->on_host) fail(std::string(what) + ": an address outside of all device memory");
    if (a->freed) fail(std::string(what) + ": " + describe(*a) + " that have been freed");
    if (a->device != device) fail(std::string(what) + ": device " + std::to_string(device) + " uses " + describe(*a));
    if (at + bytes > start + a->bytes) fail(std::string(what) + ": " + std::to_string(bytes) + " bytes reach past the end of " + describe(*a));
    use(what, *a);
}

void check_argument(const char* kernel, int device, uint64_t value) {
    Allocation* a = find(value);
    if (!a) return;
    if (a->freed) fail("kernel " + std::string(kernel) + " gets an address in " + describe(*a) + " that have been freed");
    if (!a->on_host && a->device != device) fail("kernel " + std::string(kernel) + " on device " + std::to_string(device) + " gets an address in " + describe(*a));
    use("kernel " + std::string(kernel), *a);
}

void born(uint64_t at, int stream, uint64_t ticket) { all.at(at).uses[stream] = ticket; }

void check_zones(const std::string& after) {
    for (const auto& [at, allocation] : all)
        if (!allocation.freed) check_zone(allocation, after);
}

bool is_pinned(const void* at) {
    const Allocation* a = find((uint64_t)at);
    return a && a->on_host && !a->freed;
}

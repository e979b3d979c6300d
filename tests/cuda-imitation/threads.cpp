// The threads of a block. One runs until it must wait for others; then the next one starts on another stack. Kernels without barriers
// therefore use one stack and no switch. A block whose threads wait for each other for ever aborts.
#include "imitation.h"

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <memory>
#include <vector>

#include <ucontext.h>
#include <vector_types.h>

EXPORT uint3 threadIdx, blockIdx;
EXPORT dim3 blockDim, gridDim;
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
// Dynamic shared memory: kernels declare it under a name of their own, which kernels of candle call dst_row.
EXPORT char imitation_shared[1 << 17];
__attribute__((aligned(16))) char imitation_shared[1 << 17];

namespace {

enum Wait { BLOCK, WARP };
enum { STACK = 128 << 10, LANES = 32, LARGEST = 32 };

struct Fiber {
    ucontext_t start;
    jmp_buf state;
    std::unique_ptr<char[]> stack;
    unsigned thread = 0;
    Wait wait = BLOCK;
    unsigned mask = 0;
};

struct Warp {
    unsigned alive = 0, arrived = 0, generation = 0;
    char values[2][LANES][LARGEST];
};

struct Block {
    std::string kernel;
    const Entry* entry = nullptr;
    void** arguments = nullptr;
    unsigned threads = 0, started = 0, unfinished = 0, at_barrier = 0;
    bool reversed = false;
    std::vector<Warp> warps;
    std::vector<std::unique_ptr<Fiber>> fibers;
    // Fibers without a thread, those that wait, and those that go on.
    std::vector<Fiber*> idle, waiting, next;
    Fiber* running = nullptr;
    jmp_buf scheduler;
};

Block block;

void set_thread(unsigned thread) {
    threadIdx.x = thread % blockDim.x;
    threadIdx.y = thread / blockDim.x % blockDim.y;
    threadIdx.z = thread / blockDim.x / blockDim.y;
}

// The work of a fiber: threads that no other fiber has begun.
void work() {
    while (block.started < block.threads) {
        const unsigned thread = block.reversed ? block.threads - 1 - block.started : block.started;
        block.started++;
        block.running->thread = thread;
        set_thread(thread);
        block.entry->call(block.arguments);
        block.unfinished--;
        block.warps[thread / LANES].alive &= ~(1u << thread % LANES);
    }
}

void begin() {
    for (;;) {
        work();
        block.idle.push_back(block.running);
        if (!_setjmp(block.running->state)) _longjmp(block.scheduler, 1);
    }
}

void resume(Fiber* fiber) {
    block.running = fiber;
    if (_setjmp(block.scheduler)) return;
    if (fiber->stack) _longjmp(fiber->state, 1);
    fiber->stack.reset(new char[STACK]);
    getcontext(&fiber->start);
    // Stacks begin at different places of a page, so that they do not compete for the same lines of the cache.
    const size_t shift = block.fibers.size() * 192 % 4096;
    fiber->start.uc_stack.ss_sp = fiber->stack.get();
    fiber->start.uc_stack.ss_size = STACK - shift;
    fiber->start.uc_link = nullptr;
    makecontext(&fiber->start, begin, 0);
    setcontext(&fiber->start);
}

void wait(Wait what, unsigned mask) {
    Fiber& own = *block.running;
    own.wait = what;
    own.mask = mask;
    block.waiting.push_back(&own);
    if (!_setjmp(own.state)) _longjmp(block.scheduler, 1);
}

bool released(const Fiber& fiber) {
    if (fiber.wait == BLOCK) return block.at_barrier == block.unfinished;
    const Warp& warp = block.warps[fiber.thread / LANES];
    return (warp.arrived & fiber.mask) == (warp.alive & fiber.mask);
}

Fiber* idle() {
    if (block.idle.empty()) {
        block.fibers.push_back(std::make_unique<Fiber>());
        return block.fibers.back().get();
    }
    Fiber* fiber = block.idle.back();
    block.idle.pop_back();
    return fiber;
}

// Moves all that may go on to `next`, before one of them runs.
void release() {
    block.next.clear();
    auto stay = block.waiting.begin();
    for (Fiber* fiber : block.waiting) {
        if (released(*fiber)) block.next.push_back(fiber);
        else *stay++ = fiber;
    }
    block.waiting.erase(stay, block.waiting.end());
    if (block.next.empty()) fail("kernel " + block.kernel + ": threads of a block wait at a barrier that the others do not reach");
    if (block.next[0]->wait == BLOCK) block.at_barrier = 0;
    for (const Fiber* fiber : block.next) {
        if (fiber->wait == BLOCK) continue;
        Warp& warp = block.warps[fiber->thread / LANES];
        if (warp.arrived & fiber->mask) warp.generation++;
        warp.arrived &= ~fiber->mask;
    }
}

void run_block() {
    block.started = block.at_barrier = 0;
    block.unfinished = block.threads;
    for (unsigned i = 0; i < block.warps.size(); i++) {
        const unsigned lanes = std::min<unsigned>(LANES, block.threads - i * LANES);
        block.warps[i].alive = lanes == LANES ? ~0u : (1u << lanes) - 1;
        block.warps[i].arrived = 0;
    }
    while (block.started < block.threads) resume(idle());
    while (!block.waiting.empty()) {
        release();
        for (size_t i = 0; i < block.next.size(); i++) {
            set_thread(block.next[i]->thread);
            resume(block.next[i]);
        }
    }
}

}  // namespace

EXPORT void imitation_sync_block() {
    block.at_barrier++;
    wait(BLOCK, 0);
}

EXPORT void imitation_sync_warp(unsigned mask) {
    const unsigned thread = block.running->thread;
    block.warps[thread / LANES].arrived |= 1u << thread % LANES;
    wait(WARP, mask);
}

// Gives `own` to the warp and takes that of `lane`, or keeps it where there is no such thread.
EXPORT void imitation_exchange(unsigned mask, const void* own, void* other, unsigned bytes, int lane) {
    const unsigned thread = block.running->thread;
    Warp& warp = block.warps[thread / LANES];
    // The values of one exchange stay until all threads have arrived at the next one.
    auto* values = warp.values[warp.generation & 1];
    memcpy(values[thread % LANES], own, bytes);
    const unsigned alive = warp.alive;
    imitation_sync_warp(mask);
    const bool exists = lane >= 0 && lane < LANES && (alive >> lane & 1) && (mask >> lane & 1);
    memcpy(other, exists ? values[lane] : own, bytes);
}

void run_grid(const std::string& name, const Entry& entry, void** arguments, const unsigned (&grid)[3], const unsigned (&threads)[3], unsigned shared_bytes) {
    block.kernel = name;
    block.entry = &entry;
    block.arguments = arguments;
    block.threads = threads[0] * threads[1] * threads[2];
    block.reversed = setting("IMITATION_REVERSED", 0) != 0;
    block.warps.resize((block.threads + LANES - 1) / LANES);
    if (shared_bytes > sizeof imitation_shared) fail("kernel " + name + ": too much dynamic shared memory");
    gridDim = dim3{grid[0], grid[1], grid[2]};
    blockDim = dim3{threads[0], threads[1], threads[2]};
    const uint64_t blocks = (uint64_t)grid[0] * grid[1] * grid[2];
    for (uint64_t i = 0; i < blocks; i++) {
        const uint64_t at = block.reversed ? blocks - 1 - i : i;
        blockIdx.x = at % grid[0];
        blockIdx.y = at / grid[0] % grid[1];
        blockIdx.z = at / grid[0] / grid[1];
        memset(imitation_shared, 0xff, shared_bytes);
        run_block();
    }
}

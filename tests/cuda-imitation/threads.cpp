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

enum Wait { NOTHING, BLOCK, WARP };
enum { STACK = 256 << 10, LANES = 32, LARGEST = 32 };

struct Fiber {
    ucontext_t start;
    jmp_buf state;
    std::unique_ptr<char[]> stack;
    bool used = false;
    unsigned thread = 0;
    Wait wait = NOTHING;
    unsigned mask = 0;
};

struct Warp {
    unsigned alive = 0, arrived = 0, generation = 0;
    char values[2][LANES][LARGEST];
};

struct Block {
    std::string kernel;
    std::function<void()> body;
    unsigned threads = 0, started = 0, unfinished = 0, at_barrier = 0;
    bool reversed = false;
    std::vector<Warp> warps;
    std::vector<std::unique_ptr<Fiber>> fibers;
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
        block.body();
        block.unfinished--;
        block.warps[thread / LANES].alive &= ~(1u << thread % LANES);
    }
}

void begin() {
    for (;;) {
        work();
        block.running->wait = NOTHING;
        block.running->used = false;
        if (!_setjmp(block.running->state)) _longjmp(block.scheduler, 1);
    }
}

void resume(Fiber& fiber) {
    block.running = &fiber;
    if (_setjmp(block.scheduler)) return;
    if (fiber.stack) {
        if (fiber.used) set_thread(fiber.thread);
        fiber.used = true;
        _longjmp(fiber.state, 1);
    }
    fiber.stack.reset(new char[STACK]);
    fiber.used = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, begin, 0);
    setcontext(&fiber.start);
}

void wait(Wait what, unsigned mask) {
    Fiber& own = *block.running;
    own.wait = what;
    own.mask = mask;
    if (!_setjmp(own.state)) _longjmp(block.scheduler, 1);
}

bool released(Fiber& fiber) {
    if (fiber.wait == BLOCK) return block.at_barrier == block.unfinished;
    const Warp& warp = block.warps[fiber.thread / LANES];
    return (warp.arrived & fiber.mask) == (warp.alive & fiber.mask);
}

Fiber& unused() {
    for (auto& fiber : block.fibers)
        if (!fiber->used) return *fiber;
    block.fibers.push_back(std::make_unique<Fiber>());
    return *block.fibers.back();
}

void run_block() {
    block.started = block.at_barrier = 0;
    block.unfinished = block.threads;
    for (unsigned i = 0; i < block.warps.size(); i++) {
        const unsigned lanes = std::min<unsigned>(LANES, block.threads - i * LANES);
        block.warps[i].alive = lanes == LANES ? ~0u : (1u << lanes) - 1;
        block.warps[i].arrived = 0;
    }
    while (block.unfinished > 0) {
        while (block.started < block.threads) resume(unused());
        // All threads that may go on are chosen before one of them runs.
        std::vector<Fiber*> next;
        for (auto& fiber : block.fibers)
            if (fiber->used && released(*fiber)) next.push_back(fiber.get());
        if (next.empty() && block.unfinished > 0)
            fail("kernel " + block.kernel + ": threads of a block wait at a barrier that the others do not reach");
        if (!next.empty() && next[0]->wait == BLOCK) block.at_barrier = 0;
        for (Fiber* fiber : next)
            if (fiber->wait == WARP) {
                Warp& warp = block.warps[fiber->thread / LANES];
                if (warp.arrived & fiber->mask) warp.generation++;
                warp.arrived &= ~fiber->mask;
            }
        for (Fiber* fiber : next) resume(*fiber);
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
    block.body = [&] { entry.call(arguments); };
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

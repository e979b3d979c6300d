// NCCL for the processes of one machine: each writes its part to shared memory, and all add the parts in the order of their ranks.
#include "imitation.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <vector>

#include <fcntl.h>
#include <nccl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {

enum : size_t { PART = 1 << 20, MOST_RANKS = 16 };

struct Shared {
    std::atomic<int> arrived, round;
    alignas(64) char parts[MOST_RANKS][PART];
};

template <class T> void add(T* sum, const void* part, size_t n) {
    for (size_t i = 0; i < n; i++) sum[i] += ((const T*)part)[i];
}

}  // namespace

struct ncclComm {
    int rank, size, device;
    Shared* shared;
    std::string name;

    // Waits for all ranks; aborts if one is gone.
    void meet() {
        const int round = shared->round.load();
        if (shared->arrived.fetch_add(1) + 1 == size) {
            shared->arrived = 0;
            shared->round = round + 1;
            return;
        }
        const timespec pause = {0, 50000};
        for (int i = 0; shared->round.load() == round; i++) {
            if (i == 600000) fail("NCCL: another rank does not come");
            if (i > 1000) nanosleep(&pause, nullptr);
        }
    }
};

EXPORT const char* ncclGetErrorString(ncclResult_t) { return "NCCL failed"; }
EXPORT ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/imitation-%d-%ld", (int)getpid(), now.tv_nsec);
    return ncclSuccess;
}
EXPORT ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
    if (size > (int)MOST_RANKS || current_device() < 0) return ncclInvalidArgument;
    const int file = shm_open(id.internal, O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, sizeof(Shared)) != 0) return ncclSystemError;
    void* shared = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) return ncclSystemError;
    auto* made = new ncclComm{rank, size, current_device(), (Shared*)shared, id.internal};
    made->meet();
    // All have opened it.
    if (rank == 0) shm_unlink(id.internal);
    return *comm = made, ncclSuccess;
}
EXPORT ncclResult_t ncclCommDestroy(ncclComm_t comm) { return munmap(comm->shared, sizeof(Shared)), delete comm, ncclSuccess; }
EXPORT ncclResult_t ncclCommAbort(ncclComm_t comm) { return ncclCommDestroy(comm); }

EXPORT ncclResult_t ncclAllReduce(const void* from, void* to, size_t count, ncclDataType_t kind, ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
    auto guard = locked();
    if (operation != ncclSum || (kind != ncclFloat32 && kind != ncclFloat64)) fail("NCCL: only sums of f32 and f64 are imitated");
    if (device_of((CUstream)stream) != comm->device) fail("NCCL: a stream of another device");
    const size_t each = kind == ncclFloat32 ? 4 : 8;
    auto sums = std::make_shared<std::vector<char>>(count * each);
    enqueue((CUstream)stream, [=] {
        check_range("NCCL, input", comm->device, (uint64_t)from, count * each);
        check_range("NCCL, sum", comm->device, (uint64_t)to, count * each);
        for (size_t first = 0; first < count; first += PART / each) {
            const size_t n = std::min(PART / each, count - first);
            memcpy(comm->shared->parts[comm->rank], (const char*)from + first * each, n * each);
            comm->meet();
            char* sum = sums->data() + first * each;
            memcpy(sum, comm->shared->parts[0], n * each);
            for (int rank = 1; rank < comm->size; rank++) {
                if (kind == ncclFloat32) add((float*)sum, comm->shared->parts[rank], n);
                else add((double*)sum, comm->shared->parts[rank], n);
            }
            comm->meet();
        }
        // Not a number until somebody waits for the sum.
        memset(to, 0xff, count * each);
    });
    // Other ranks need this one's part, whatever this program waits for next.
    finish((CUstream)stream);
    enqueue((CUstream)stream, [=] {
        check_range("NCCL, sum", comm->device, (uint64_t)to, count * each);
        memcpy(to, sums->data(), count * each);
    });
    return ncclSuccess;
}

// cuBLAS by plain loops: products of column-major matrices, with sums in the type of the computation. cuRAND: only its creation.
#include "imitation.h"
#include "numbers.h"

#include <type_traits>
#include <vector>

#include <cublas_v2.h>
#include <curand.h>

struct cublasContext {
    int device;
    CUstream stream;
};

namespace {

Number number_of(cudaDataType kind) {
    switch (kind) {
    case CUDA_R_32F: return Number::F32;
    case CUDA_R_64F: return Number::F64;
    case CUDA_R_16BF: return Number::BF16;
    case CUDA_R_16F: return Number::F16;
    default: fail("products of type " + std::to_string(kind) + " are not imitated");
    }
}

struct Matrix {
    Number kind;
    int row;
    bool transposed;
};

struct Product {
    int m, n, k;
    Matrix a, b, c;
    double alpha, beta;
    bool tf32;
};

// Numbers that a matrix of these sides takes in memory.
uint64_t extent(const Matrix& m, int rows, int columns) {
    if (m.transposed) std::swap(rows, columns);
    if (rows == 0 || columns == 0) return 0;
    if (m.row < rows) fail("cuBLAS: a leading dimension of " + std::to_string(m.row) + " for " + std::to_string(rows) + " rows");
    return (uint64_t)m.row * (columns - 1) + rows;
}

template <class T> std::vector<T> row_major(const void* at, const Matrix& m, int rows, int columns, bool tf32) {
    std::vector<T> all((size_t)rows * columns);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            const T x = read_number<T>(at, m.kind, m.transposed ? (int64_t)i * m.row + j : (int64_t)j * m.row + i);
            all[(size_t)i * columns + j] = tf32 ? (T)to_tf32((float)x) : x;
        }
    return all;
}

template <class T> void multiply(const Product& p, const void* a, const void* b, void* c) {
    const auto left = row_major<T>(a, p.a, p.m, p.k, p.tf32), right = row_major<T>(b, p.b, p.k, p.n, p.tf32);
    std::vector<T> sums(p.n);
    for (int i = 0; i < p.m; i++) {
        sums.assign(p.n, T(0));
        for (int l = 0; l < p.k; l++) {
            const T factor = left[(size_t)i * p.k + l];
            const T* row = &right[(size_t)l * p.n];
            for (int j = 0; j < p.n; j++) sums[j] += factor * row[j];
        }
        for (int j = 0; j < p.n; j++) {
            const int64_t at = (int64_t)j * p.c.row + i;
            const T old = p.beta == 0 ? T(0) : read_number<T>(c, p.c.kind, at);
            write_number(c, p.c.kind, at, (T)(p.alpha * sums[j] + p.beta * old));
        }
    }
}

void run(const Product& p, int device, const void* a, const void* b, void* c) {
    const auto check = [&](const char* what, const void* at, const Matrix& m, int rows, int columns) {
        if ((uint64_t)at % size_of(m.kind) != 0) fail(std::string(what) + ": an address that is not aligned");
        check_range(what, device, (uint64_t)at, extent(m, rows, columns) * size_of(m.kind));
    };
    check("cuBLAS, first factor", a, p.a, p.m, p.k);
    check("cuBLAS, second factor", b, p.b, p.k, p.n);
    check("cuBLAS, product", c, p.c, p.m, p.n);
    if (p.a.kind == Number::F64) multiply<double>(p, a, b, c);
    else multiply<float>(p, a, b, c);
}

double scalar(const void* at, cublasComputeType_t compute) {
    switch (compute) {
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_FAST_TF32: return *(const float*)at;
    case CUBLAS_COMPUTE_64F: return *(const double*)at;
    default: fail("cuBLAS: the computation " + std::to_string(compute) + " is not imitated");
    }
}

// Queues `work`, which the handle's device must be current for.
template <class Work> cublasStatus_t queue(cublasHandle_t handle, Work work) {
    auto guard = locked();
    if (handle->device != current_device()) fail("cuBLAS: the handle of device " + std::to_string(handle->device) + " is used while device " + std::to_string(current_device()) + " is current");
    enqueue(handle->stream, work);
    return CUBLAS_STATUS_SUCCESS;
}

Product product(cublasOperation_t of_a, cublasOperation_t of_b, int m, int n, int k, const void* alpha, cudaDataType a, int lda, cudaDataType b, int ldb,
                const void* beta, cudaDataType c, int ldc, cublasComputeType_t compute) {
    if (a != b) fail("cuBLAS: factors of two types");
    const bool tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32 && a == CUDA_R_32F;
    return {m, n, k, {number_of(a), lda, of_a != CUBLAS_OP_N}, {number_of(b), ldb, of_b != CUBLAS_OP_N}, {number_of(c), ldc, false}, scalar(alpha, compute), scalar(beta, compute), tf32};
}

}  // namespace

EXPORT cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
    if (current_device() < 0) return CUBLAS_STATUS_NOT_INITIALIZED;
    return *handle = new cublasContext{current_device(), nullptr}, CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) { return delete handle, CUBLAS_STATUS_SUCCESS; }
EXPORT cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    if (stream && device_of((CUstream)stream) != handle->device) fail("cuBLAS: a stream of another device");
    return handle->stream = (CUstream)stream, CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void*, size_t) { return CUBLAS_STATUS_SUCCESS; }

EXPORT cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t of_a, cublasOperation_t of_b, int m, int n, int k, const void* alpha, const void* a,
                                   cudaDataType kind_a, int lda, const void* b, cudaDataType kind_b, int ldb, const void* beta, void* c, cudaDataType kind_c, int ldc,
                                   cublasComputeType_t compute, cublasGemmAlgo_t) {
    const Product p = product(of_a, of_b, m, n, k, alpha, kind_a, lda, kind_b, ldb, beta, kind_c, ldc, compute);
    return queue(handle, [=, device = handle->device] { run(p, device, a, b, c); });
}

EXPORT cublasStatus_t cublasGemmBatchedEx(cublasHandle_t handle, cublasOperation_t of_a, cublasOperation_t of_b, int m, int n, int k, const void* alpha, const void* const a[],
                                          cudaDataType kind_a, int lda, const void* const b[], cudaDataType kind_b, int ldb, const void* beta, void* const c[],
                                          cudaDataType kind_c, int ldc, int batch, cublasComputeType_t compute, cublasGemmAlgo_t) {
    const Product p = product(of_a, of_b, m, n, k, alpha, kind_a, lda, kind_b, ldb, beta, kind_c, ldc, compute);
    return queue(handle, [=, device = handle->device] {
        for (const void* list : {(const void*)a, (const void*)b, (const void*)c}) check_range("cuBLAS, a list of addresses", device, (uint64_t)list, (uint64_t)batch * 8);
        for (int i = 0; i < batch; i++) {
            // Documented for types of tensor cores: rows of k numbers that fill 16 bytes, or 4, are read so much at a time.
            const unsigned bytes = p.k * size_of(p.a.kind), piece = bytes % 16 == 0 ? 16 : bytes % 4 == 0 ? 4 : 1;
            for (const void* at : {a[i], b[i], (const void*)c[i]})
                if ((p.a.kind != Number::F32 || p.tf32) && (uint64_t)at % piece != 0) 
                    fail("cuBLAS: a product of " + std::to_string(p.m) + "x" + std::to_string(p.k) + " and " + std::to_string(p.k) + "x" + std::to_string(p.n) + " with a matrix that is not aligned to " +
                         std::to_string(piece) + " bytes");
            run(p, device, a[i], b[i], c[i]);
        }
    });
}

EXPORT cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t of_a, cublasOperation_t of_b, int m, int n, int k, const void* alpha, const void* a,
                                                 cudaDataType kind_a, int lda, long long step_a, const void* b, cudaDataType kind_b, int ldb, long long step_b, const void* beta,
                                                 void* c, cudaDataType kind_c, int ldc, long long step_c, int batch, cublasComputeType_t compute, cublasGemmAlgo_t) {
    const Product p = product(of_a, of_b, m, n, k, alpha, kind_a, lda, kind_b, ldb, beta, kind_c, ldc, compute);
    return queue(handle, [=, device = handle->device] {
        const auto at = [](const void* base, const Matrix& matrix, long long elements) { return (char*)base + elements * size_of(matrix.kind); };
        for (int i = 0; i < batch; i++) run(p, device, at(a, p.a, i * step_a), at(b, p.b, i * step_b), at(c, p.c, i * step_c));
    });
}

EXPORT cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t of_a, cublasOperation_t of_b, int m, int n, int k, const double* alpha, const double* a, int lda,
                                                long long step_a, const double* b, int ldb, long long step_b, const double* beta, double* c, int ldc, long long step_c, int batch) {
    return cublasGemmStridedBatchedEx(handle, of_a, of_b, m, n, k, alpha, a, CUDA_R_64F, lda, step_a, b, CUDA_R_64F, ldb, step_b, beta, c, CUDA_R_64F, ldc, step_c, batch,
                                      CUBLAS_COMPUTE_64F, CUBLAS_GEMM_DEFAULT);
}

EXPORT curandStatus_t curandCreateGenerator(curandGenerator_t* generator, curandRngType_t) { return *generator = (curandGenerator_t)1, CURAND_STATUS_SUCCESS; }
EXPORT curandStatus_t curandDestroyGenerator(curandGenerator_t) { return CURAND_STATUS_SUCCESS; }
EXPORT curandStatus_t curandSetStream(curandGenerator_t, cudaStream_t) { return CURAND_STATUS_SUCCESS; }
EXPORT curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t, unsigned long long) { return CURAND_STATUS_SUCCESS; }

// Moves elements: channels first to channels last and back, concatenation, and ranges of columns.

// x [batch, rows, cols] -> y [batch, cols, rows] by tiles of 32 x 32; block (32, 8), grid (column tiles, row tiles, batch), the last two may be fewer.
// A matrix narrower than a tile (the 9 or 1 positions of a convolution kernel) is contiguous on that side and is copied as such.
template <class S, class D> DEVICE void transpose(const S* x, D* y, int batch, int rows, int cols, float (*tile)[33]) {
    const int tx = threadIdx.x, ty = threadIdx.y, thread = ty * 32 + tx;
    const int c0 = blockIdx.x * 32, width = min(32, cols - c0);
    for (int b = blockIdx.z; b < batch; b += gridDim.z) {
        const S* from = x + (long long)b * rows * cols;
        D* to = y + (long long)b * rows * cols;
        for (long long r0 = blockIdx.y * 32LL; r0 < rows; r0 += gridDim.y * 32LL) {
            const int height = (int)min(32LL, rows - r0);
            if (cols < 32) {
                for (int i = thread; i < height * cols; i += 256) tile[i / cols][i % cols] = load(from[r0 * cols + i]);
            } else {
#pragma unroll
                for (int r = ty; r < 32; r += 8)
                    if (r < height && tx < width) tile[r][tx] = load(from[(r0 + r) * cols + c0 + tx]);
            }
            __syncthreads();
            if (rows < 32) {
                for (int i = thread; i < width * rows; i += 256) to[(long long)c0 * rows + i] = store<D>(tile[i % rows][i / rows]);
            } else {
#pragma unroll
                for (int c = ty; c < 32; c += 8)
                    if (c < width && tx < height) to[(long long)(c0 + c) * rows + r0 + tx] = store<D>(tile[tx][c]);
            }
            __syncthreads();
        }
    }
}

// y [batch, cols, rows] = x [batch, rows, cols] with its last two axes swapped, in the type of y
#define TRANSPOSE(S, s, D, d) \
    KERNEL transpose_##s##_##d(const S* x, D* y, int batch, int rows, int cols) { \
        __shared__ float tile[32][33]; \
        transpose(x, y, batch, rows, cols, tile); \
    }
TRANSPOSE(float, f32, float, f32)
TRANSPOSE(float, f32, bf16, bf16)
TRANSPOSE(float, f32, f16, f16)
TRANSPOSE(bf16, bf16, float, f32)
TRANSPOSE(f16, f16, float, f32)
TRANSPOSE(bf16, bf16, bf16, bf16)
TRANSPOSE(f16, f16, f16, f16)

// Rows of `a` then `b` units, of any size: nothing is computed, so the largest piece that fits is copied.
template <class U> DEVICE void join(const U* a, const U* b, U* y, long long M, int ca, int cb) {
    const int width = ca + cb;
    for (long long i = thread_index(); i < M * width; i += thread_count()) {
        const long long row = quotient(i, width);
        const int c = (int)(i - row * width);
        y[i] = c < ca ? a[row * ca + c] : b[row * cb + (c - ca)];
    }
}
template <class T> DEVICE void cat(const T* a, const T* b, T* y, long long M, int ca, int cb) {
    enum { V = Lanes<T>::n };
    if (ca % V == 0 && cb % V == 0 && aligned(a, b, y)) join((const uint4*)a, (const uint4*)b, (uint4*)y, M, ca / V, cb / V);
    else join(a, b, y, M, ca, cb);
}

// y [M, Ca + Cb] = a [M, Ca] next to b [M, Cb]
#define CAT(T, t) \
    KERNEL cat_##t(const T* a, const T* b, T* y, long long M, int Ca, int Cb) { cat(a, b, y, M, Ca, Cb); }
FOR_EACH_TYPE(CAT)

template <class U> DEVICE void columns(const U* x, U* y, long long M, int c, int first, int cy) {
    for (long long i = thread_index(); i < M * cy; i += thread_count()) {
        const long long row = quotient(i, cy);
        y[i] = x[row * c + first + (i - row * cy)];
    }
}
template <class T> DEVICE void slice(const T* x, T* y, long long M, int c, int first, int cy) {
    enum { V = Lanes<T>::n };
    if (c % V == 0 && first % V == 0 && cy % V == 0 && aligned(x, y)) columns((const uint4*)x, (uint4*)y, M, c / V, first / V, cy / V);
    else columns(x, y, M, c, first, cy);
}

// y [M, Cy] = columns first .. first + Cy of x [M, C]
#define SLICE(T, t) \
    KERNEL slice_##t(const T* x, T* y, long long M, int C, int first, int Cy) { slice(x, y, M, C, first, Cy); }
FOR_EACH_TYPE(SLICE)

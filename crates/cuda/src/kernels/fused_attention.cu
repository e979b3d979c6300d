// Attention that keeps no scores: a block has 64 rows of queries or keys, 16 for each of its 4 warps, and walks over the other side in tiles.
// Products are those of tensor cores, in fragments of 16 by 16 (the first factor), 16 by 8 (the second) and 16 by 8 (the sum) elements; a lane has
// the elements of row lane / 4 and the row 8 below, or of column lane / 4 of the second factor, from column or row 2 (lane % 4) on.
// Compute capability 8.0 and later. Heads are padded with zeros to DP channels. Exponents are powers of two: exp(x) = exp2(x log2(e)).

#if defined(EMULATE) || __CUDA_ARCH__ >= 800

#define WARPS_KERNEL extern "C" __global__ void __launch_bounds__(128, 2) // without the hint the compiler spills registers of one
// Sizes: positions, heads, channels of a head; steps from a head to the next and from queries to keys to values; the factor of the scores.
#define SHAPE int N, int H, int D, int head, int third, float scale
#define SHAPE_OF N, H, D, head, third, scale

struct Lane { int row, pair; }; // lane / 4, 2 (lane % 4)
DEVICE Lane lane_of() {
    Lane l;
    l.row = (int)threadIdx.x % 32 / 4;
    l.pair = (int)threadIdx.x % 4 * 2;
    return l;
}

#ifdef EMULATE
template <class T> DEVICE void multiply(T, float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    struct Words { unsigned a[4], b[2]; };
    const Words own = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const Lane l = lane_of();
    for (int q = 0; q < 4; q++) {
        const Words row = __shfl_sync(0xffffffffu, own, l.row * 4 + q);
        for (int c = 0; c < 2; c++) {
            const Words column = __shfl_sync(0xffffffffu, own, (l.pair + c) * 4 + q);
            for (int half = 0; half < 2; half++) {
                float top[2], bottom[2], right[2];
                unpack(T(), row.a[2 * half], top);
                unpack(T(), row.a[2 * half + 1], bottom);
                unpack(T(), column.b[half], right);
                sum[c] += top[0] * right[0] + top[1] * right[1];
                sum[2 + c] += bottom[0] * right[0] + bottom[1] * right[1];
            }
        }
    }
}
template <class T> DEVICE void load_columns(const T* row, unsigned (&b)[2]) {
    const Lane l = lane_of();
    for (int half = 0; half < 2; half++) {
        unsigned short pair[2];
        for (int i = 0; i < 2; i++) pair[i] = __shfl_sync(0xffffffffu, row, half * 8 + l.pair + i)[l.row].bits;
        // Both rows are read by the other lanes, too.
        b[half] = pair[0] | (unsigned)pair[1] << 16;
    }
}
#else
// sum += a b
#define MULTIPLY(T, t) \
    DEVICE void multiply(T, float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." t "." t ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]) \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])); \
    }
MULTIPLY(bf16, "bf16")
MULTIPLY(f16, "f16")
// The second factor whose rows are those of a tile: each of the first 16 lanes has the address of 8 elements of a row.
template <class T> DEVICE void load_columns(const T* row, unsigned (&b)[2]) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(b[0]), "=r"(b[1]) : "r"(at) : "memory");
}
#endif

template <class T> DEVICE unsigned word(const T* at) { return *(const unsigned*)at; }
template <class T> DEVICE unsigned word_of(float first, float second) {
    const float v[2] = {first, second};
    return pack(T(), v);
}

// Rows of a tile are 16 bytes longer than a head, so that the lanes of a warp read from different banks.
template <int ROWS, int DP> struct Tile {
    enum { pitch = DP + 8, chunks = ROWS * pitch / 8 };
};

// A tile of rows first .. first + ROWS - 1 of a matrix; rows from N on and channels from D on are zeros.
template <int ROWS, int DP, class T> DEVICE void load_tile(const T* from, long long row, int first, int N, int D, T* to) {
    for (int i = threadIdx.x; i < ROWS * (DP / 8); i += 128) {
        const int r = i / (DP / 8), c = i % (DP / 8) * 8;
        uint4 w = {0, 0, 0, 0};
        if (first + r < N && c < D) w = *(const uint4*)(from + (first + r) * row + c);
        *(uint4*)(to + r * Tile<ROWS, DP>::pitch + c) = w;
    }
}

// s = a b^T for 16 rows of a tile a and the 8 NT rows of a tile b
template <int DP, int NT, class T> DEVICE void products(float (&s)[NT][4], const T* a, const T* b) {
    enum { pitch = DP + 8 };
    const Lane l = lane_of();
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[n][i] = 0.0f;
#pragma unroll
    for (int k = 0; k < DP; k += 16) {
        const T *top = a + l.row * pitch + k + l.pair, *bottom = top + 8 * pitch;
        const unsigned left[4] = {word(top), word(bottom), word(top + 8), word(bottom + 8)};
#pragma unroll
        for (int n = 0; n < NT; n++) {
            const T* at = b + (n * 8 + l.row) * pitch + k + l.pair;
            const unsigned right[2] = {word(at), word(at + 8)};
            multiply(T(), s[n], left, right);
        }
    }
}

// sum += p b, with p [16, 8 NT] rounded to T, and b a tile of 8 NT rows
template <int DP, int NT, class T> DEVICE void add_products(float (&sum)[DP / 8][4], const float (&p)[NT][4], const T* b) {
    enum { pitch = DP + 8 };
#pragma unroll
    for (int n = 0; n < NT; n += 2) {
        const unsigned left[4] = {word_of<T>(p[n][0], p[n][1]), word_of<T>(p[n][2], p[n][3]), word_of<T>(p[n + 1][0], p[n + 1][1]), word_of<T>(p[n + 1][2], p[n + 1][3])};
        const T* row = b + (n * 8 + (int)threadIdx.x % 16) * pitch;
#pragma unroll
        for (int c = 0; c < DP / 8; c++) {
            unsigned right[2];
            load_columns(row + c * 8, right);
            multiply(T(), sum[c], left, right);
        }
    }
}

// Stores 16 rows from `first` on, times a factor for each half of them.
template <int DP, class T> DEVICE void store_rows(T* to, long long row, int first, int N, int D, const float (&v)[DP / 8][4], float top, float bottom) {
    const Lane l = lane_of();
#pragma unroll
    for (int c = 0; c < DP / 8; c++) {
        const int column = c * 8 + l.pair, r = first + l.row;
        if (column >= D) continue;
        if (r < N) *(unsigned*)(to + r * row + column) = word_of<T>(v[c][0] * top, v[c][1] * top);
        if (r + 8 < N) *(unsigned*)(to + (r + 8) * row + column) = word_of<T>(v[c][2] * bottom, v[c][3] * bottom);
    }
}

// Over the four lanes that share a row.
DEVICE float row_sum(float v) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}
DEVICE float row_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

template <int DP, int BN, class T> DEVICE void fused_forward(const T* qkv, T* out, const T* dout, float* lse, float* delta, SHAPE) {
    __shared__ uint4 q_tile[Tile<64, DP>::chunks], k_tile[Tile<BN, DP>::chunks], v_tile[Tile<BN, DP>::chunks];
    T *q = (T*)q_tile, *k = (T*)k_tile, *v = (T*)v_tile;
    const int tiles = (N + 63) / 64, first = (int)(blockIdx.x % tiles) * 64, warp = (int)threadIdx.x / 32 * 16;
    const long long bh = blockIdx.x / tiles, b = bh / H, h = bh - b * H, row = 3LL * H * D, out_row = (long long)H * D;
    const T* from = qkv + b * N * row + h * head;
    const Lane l = lane_of();
    const float factor = scale * 1.44269504f, lowest = __uint_as_float(0xff800000u);
    float sum[DP / 8][4] = {}, s[BN / 8][4], top[2] = {lowest, lowest}, total[2] = {0.0f, 0.0f};
    load_tile<64, DP>(from, row, first, N, D, q);
    for (int key = 0; key < N; key += BN) {
        __syncthreads();
        load_tile<BN, DP>(from + third, row, key, N, D, k);
        load_tile<BN, DP>(from + 2 * third, row, key, N, D, v);
        __syncthreads();
        products<DP, BN / 8>(s, q + warp * Tile<64, DP>::pitch, k);
        float most[2] = {lowest, lowest};
#pragma unroll
        for (int n = 0; n < BN / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][i] = key + n * 8 + l.pair + i % 2 < N ? s[n][i] * factor : lowest;
                most[i / 2] = fmaxf(most[i / 2], s[n][i]);
            }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            // The first tile has at least one key, so the maximum is finite.
            const float before = top[r];
            top[r] = fmaxf(before, row_max(most[r]));
            const float shrink = exp2f(before - top[r]);
            total[r] *= shrink;
#pragma unroll
            for (int c = 0; c < DP / 8; c++) sum[c][2 * r] *= shrink, sum[c][2 * r + 1] *= shrink;
        }
#pragma unroll
        for (int n = 0; n < BN / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][i] = exp2f(s[n][i] - top[i / 2]);
                total[i / 2] += s[n][i];
            }
        add_products<DP, BN / 8>(sum, s, v);
    }
    float inverse[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        total[r] = row_sum(total[r]);
        inverse[r] = 1.0f / total[r];
    }
    if (out) store_rows<DP>(out + b * N * out_row + h * D, out_row, first + warp, N, D, sum, inverse[0], inverse[1]);
    if (!dout) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int i = first + warp + l.row + 8 * r;
        float dot = 0.0f;
        if (i < N) {
            const T* at = dout + (b * N + i) * out_row + h * D;
#pragma unroll
            for (int c = 0; c < DP / 8; c++) {
                if (c * 8 >= D) continue;
                float d[2];
                unpack(T(), word(at + c * 8 + l.pair), d);
                dot += sum[c][2 * r] * d[0] + sum[c][2 * r + 1] * d[1];
            }
        }
        dot = row_sum(dot) * inverse[r];
        if (i < N && l.pair == 0) {
            lse[bh * N + i] = top[r] + log2f(total[r]);
            delta[bh * N + i] = dot;
        }
    }
}

// Turns a product q k into its weight, and the gradient of the weight into that of the product.
DEVICE void score_gradient(float& s, float& dp, float scale, float lse, float delta) {
    s = exp2f(s * (scale * 1.44269504f) - lse);
    dp = scale * s * (dp - delta);
}

template <int DP, int BN, class T> DEVICE void fused_query_grad(const T* qkv, const T* dout, const float* lse, const float* delta, T* dqkv, SHAPE) {
    __shared__ uint4 q_tile[Tile<64, DP>::chunks], do_tile[Tile<64, DP>::chunks], k_tile[Tile<BN, DP>::chunks], v_tile[Tile<BN, DP>::chunks];
    T *q = (T*)q_tile, *d_o = (T*)do_tile, *k = (T*)k_tile, *v = (T*)v_tile;
    const int tiles = (N + 63) / 64, first = (int)(blockIdx.x % tiles) * 64, warp = (int)threadIdx.x / 32 * 16;
    const long long bh = blockIdx.x / tiles, b = bh / H, h = bh - b * H, row = 3LL * H * D, out_row = (long long)H * D;
    const T* from = qkv + b * N * row + h * head;
    const Lane l = lane_of();
    float sum[DP / 8][4] = {}, s[BN / 8][4], dp[BN / 8][4], of_row[2][2] = {};
    load_tile<64, DP>(from, row, first, N, D, q);
    load_tile<64, DP>(dout + b * N * out_row + h * D, out_row, first, N, D, d_o);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int i = first + warp + l.row + 8 * r;
        if (i < N) of_row[0][r] = lse[bh * N + i], of_row[1][r] = delta[bh * N + i];
    }
    for (int key = 0; key < N; key += BN) {
        __syncthreads();
        load_tile<BN, DP>(from + third, row, key, N, D, k);
        load_tile<BN, DP>(from + 2 * third, row, key, N, D, v);
        __syncthreads();
        products<DP, BN / 8>(s, q + warp * Tile<64, DP>::pitch, k);
        products<DP, BN / 8>(dp, d_o + warp * Tile<64, DP>::pitch, v);
#pragma unroll
        for (int n = 0; n < BN / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                score_gradient(s[n][i], dp[n][i], scale, of_row[0][i / 2], of_row[1][i / 2]);
                if (key + n * 8 + l.pair + i % 2 >= N) dp[n][i] = 0.0f;
            }
        add_products<DP, BN / 8>(sum, dp, k);
    }
    store_rows<DP>(dqkv + b * N * row + h * head, row, first + warp, N, D, sum, 1.0f, 1.0f);
}

template <int DP, int BN, class T> DEVICE void fused_key_grad(const T* qkv, const T* dout, const float* lse, const float* delta, T* dqkv, SHAPE) {
    __shared__ uint4 k_tile[Tile<64, DP>::chunks], v_tile[Tile<64, DP>::chunks], q_tile[Tile<BN, DP>::chunks], do_tile[Tile<BN, DP>::chunks];
    __shared__ float of_query[2][BN];
    T *q = (T*)q_tile, *d_o = (T*)do_tile, *k = (T*)k_tile, *v = (T*)v_tile;
    const int tiles = (N + 63) / 64, first = (int)(blockIdx.x % tiles) * 64, warp = (int)threadIdx.x / 32 * 16;
    const long long bh = blockIdx.x / tiles, b = bh / H, h = bh - b * H, row = 3LL * H * D, out_row = (long long)H * D;
    const T* from = qkv + b * N * row + h * head;
    const Lane l = lane_of();
    float dk[DP / 8][4] = {}, dv[DP / 8][4] = {}, s[BN / 8][4], dp[BN / 8][4];
    load_tile<64, DP>(from + third, row, first, N, D, k);
    load_tile<64, DP>(from + 2 * third, row, first, N, D, v);
    for (int query = 0; query < N; query += BN) {
        __syncthreads();
        load_tile<BN, DP>(from, row, query, N, D, q);
        load_tile<BN, DP>(dout + b * N * out_row + h * D, out_row, query, N, D, d_o);
        for (int i = threadIdx.x; i < BN; i += 128) {
            // Queries after the last one get the weight exp2(-infinity).
            of_query[0][i] = query + i < N ? lse[bh * N + query + i] : __uint_as_float(0x7f800000u);
            of_query[1][i] = query + i < N ? delta[bh * N + query + i] : 0.0f;
        }
        __syncthreads();
        products<DP, BN / 8>(s, k + warp * Tile<64, DP>::pitch, q);
        products<DP, BN / 8>(dp, v + warp * Tile<64, DP>::pitch, d_o);
#pragma unroll
        for (int n = 0; n < BN / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int column = n * 8 + l.pair + i % 2;
                score_gradient(s[n][i], dp[n][i], scale, of_query[0][column], of_query[1][column]);
            }
        add_products<DP, BN / 8>(dv, s, d_o);
        add_products<DP, BN / 8>(dk, dp, q);
    }
    T* to = dqkv + b * N * row + h * head;
    store_rows<DP>(to + third, row, first + warp, N, D, dk, 1.0f, 1.0f);
    store_rows<DP>(to + 2 * third, row, first + warp, N, D, dv, 1.0f, 1.0f);
}

// qkv [B, N, 3 H D], out and dout [B, N, H D], lse and delta [B, H, N]. The forward pass writes out if there is one and, with dout, what the gradients
// need: the logarithm of each row's sum to base 2, and the sum of dout * out. Grid: B H ceil(N / 64) blocks of 128 threads. BN rows at a time.
#define FUSED(T, t, DP, BN, BG) \
    WARPS_KERNEL fused_forward_##DP##_##t(const T* qkv, T* out, const T* dout, float* lse, float* delta, SHAPE) { \
        fused_forward<DP, BN>(qkv, out, dout, lse, delta, SHAPE_OF); \
    } \
    WARPS_KERNEL fused_query_grad_##DP##_##t(const T* qkv, const T* dout, const float* lse, const float* delta, T* dqkv, SHAPE) { \
        fused_query_grad<DP, BG>(qkv, dout, lse, delta, dqkv, SHAPE_OF); \
    } \
    WARPS_KERNEL fused_key_grad_##DP##_##t(const T* qkv, const T* dout, const float* lse, const float* delta, T* dqkv, SHAPE) { \
        fused_key_grad<DP, BG>(qkv, dout, lse, delta, dqkv, SHAPE_OF); \
    }
#define FUSED_OF(T, t) FUSED(T, t, 32, 64, 32) FUSED(T, t, 64, 64, 32) FUSED(T, t, 96, 32, 16) FUSED(T, t, 128, 32, 16)
FUSED_OF(bf16, bf16)
FUSED_OF(f16, f16)

#endif

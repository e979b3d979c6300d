// Dense layers of one input, f32: y_i [B, C_i] = x [B, E] w_i^T + bias_i, one layer after the other in memory. With few images these read
// each weight once and wait for memory, so all layers are one launch. A row is one output of one layer, counted over all of them.

enum { MOST_LINEARS = 64, IMAGES = 8, COLUMNS = 256, ROWS = 4, MOST_CHUNK = 128 };

// Addresses of each layer's parameters, the gradient of its result, and the gradients of its parameters, which are null where
// they are not wanted; `first` are the first rows of the layers, and after the last one their number.
struct Layers {
    const float *w[MOST_LINEARS], *bias[MOST_LINEARS], *dy[MOST_LINEARS];
    float *dw[MOST_LINEARS], *db[MOST_LINEARS];
    int first[MOST_LINEARS + 1];
    int n;
};

DEVICE int layer_of(const Layers& layers, int row) {
    int from = 0, to = layers.n;
    while (to - from > 1) {
        const int middle = (from + to) / 2;
        if (layers.first[middle] <= row) from = middle;
        else to = middle;
    }
    return from;
}

// Images b0 .. b0 + IMAGES and columns e0 .. e0 + COLUMNS of x, zeros outside. Includes the barriers before and after.
DEVICE void load_tile(const float* x, int B, int E, int b0, int e0, float (*tile)[COLUMNS]) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < IMAGES; i++) {
        const int b = b0 + i, e = e0 + (int)threadIdx.x;
        tile[i][threadIdx.x] = b < B && e < E ? x[(long long)b * E + e] : 0.0f;
    }
    __syncthreads();
}

// A warp has ROWS rows, for IMAGES images at a time; grid (ceil(rows / (8 ROWS)), any)
KERNEL linears(const __grid_constant__ Layers layers, const float* x, float* y, int B, int E, int rows) {
    __shared__ float tile[IMAGES][COLUMNS];
    const int lane = threadIdx.x % 32, row0 = ((int)blockIdx.x * 8 + (int)threadIdx.x / 32) * ROWS;
    for (int b0 = blockIdx.y * IMAGES; b0 < B; b0 += gridDim.y * IMAGES) {
        float sum[ROWS][IMAGES] = {};
        for (int e0 = 0; e0 < E; e0 += COLUMNS) {
            load_tile(x, B, E, b0, e0, tile);
#pragma unroll
            for (int k = 0; k < ROWS; k++) {
                if (row0 + k >= rows) break;
                const int layer = layer_of(layers, row0 + k);
                const float* w = layers.w[layer] + (long long)(row0 + k - layers.first[layer]) * E + e0;
                for (int e = lane; e < min((int)COLUMNS, E - e0); e += 32) {
                    const float v = w[e];
#pragma unroll
                    for (int i = 0; i < IMAGES; i++) sum[k][i] = fmaf(v, tile[i][e], sum[k][i]);
                }
            }
        }
#pragma unroll
        for (int k = 0; k < ROWS; k++) {
            if (row0 + k >= rows) break;
            const int layer = layer_of(layers, row0 + k), first = layers.first[layer], c = row0 + k - first;
            const int width = layers.first[layer + 1] - first;
            const float bias = layers.bias[layer][c];
#pragma unroll
            for (int i = 0; i < IMAGES; i++) {
                const float total = warp_sum(sum[k][i]);
                if (lane == i && b0 + i < B) y[(long long)first * B + (long long)(b0 + i) * width + c] = total + bias;
            }
        }
    }
}

// dw [C, E] = dy^T x and db [C] = sums of dy over the images, for each layer; grid (ceil(rows / (8 ROWS)), ceil(E / COLUMNS))
KERNEL linears_weight_grad(const __grid_constant__ Layers layers, const float* x, int B, int E, int rows) {
    __shared__ float tile[IMAGES][COLUMNS];
    const int lane = threadIdx.x % 32, row0 = ((int)blockIdx.x * 8 + (int)threadIdx.x / 32) * ROWS, e0 = blockIdx.y * COLUMNS;
    float sum[ROWS][COLUMNS / 32] = {}, bias[ROWS] = {};
    for (int b0 = 0; b0 < B; b0 += IMAGES) {
        load_tile(x, B, E, b0, e0, tile);
#pragma unroll
        for (int k = 0; k < ROWS; k++) {
            if (row0 + k >= rows) break;
            const int layer = layer_of(layers, row0 + k), first = layers.first[layer], width = layers.first[layer + 1] - first;
            const float* dy = layers.dy[layer] + row0 + k - first;
            for (int i = 0; i < min((int)IMAGES, B - b0); i++) {
                const float g = dy[(long long)(b0 + i) * width];
                bias[k] += g;
#pragma unroll
                for (int m = 0; m < COLUMNS / 32; m++) sum[k][m] = fmaf(g, tile[i][m * 32 + lane], sum[k][m]);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
        if (row0 + k >= rows) break;
        const int layer = layer_of(layers, row0 + k), c = row0 + k - layers.first[layer];
        float *dw = layers.dw[layer], *db = layers.db[layer];
        if (dw) {
#pragma unroll
            for (int m = 0; m < COLUMNS / 32; m++) {
                const int e = e0 + m * 32 + lane;
                if (e < E) dw[(long long)c * E + e] = sum[k][m];
            }
        }
        if (db && blockIdx.y == 0 && lane == 0) db[c] = bias[k];
    }
}

// partial [chunks, B, E] = dy w over `chunk` rows each, at most MOST_CHUNK; grid (ceil(rows / chunk), ceil(E / 256))
KERNEL linears_input_grad_partial(const __grid_constant__ Layers layers, float* partial, int B, int E, int rows, int chunk) {
    __shared__ const float* w[MOST_CHUNK];
    __shared__ float g[MOST_CHUNK][IMAGES];
    const int row0 = (int)blockIdx.x * chunk, n = min(chunk, rows - row0), e = (int)(blockIdx.y * 256 + threadIdx.x);
    for (int r = threadIdx.x; r < n; r += 256) {
        const int layer = layer_of(layers, row0 + r);
        w[r] = layers.w[layer] + (long long)(row0 + r - layers.first[layer]) * E;
    }
    for (int b0 = 0; b0 < B; b0 += IMAGES) {
        __syncthreads();
        for (int k = threadIdx.x; k < n * IMAGES; k += 256) {
            const int r = k % n, b = b0 + k / n, layer = layer_of(layers, row0 + r), first = layers.first[layer];
            g[r][k / n] = b < B ? layers.dy[layer][(long long)b * (layers.first[layer + 1] - first) + row0 + r - first] : 0.0f;
        }
        __syncthreads();
        if (e >= E) continue;
        float sum[IMAGES] = {};
        for (int r = 0; r < n; r++) {
            const float v = w[r][e];
#pragma unroll
            for (int i = 0; i < IMAGES; i++) sum[i] = fmaf(g[r][i], v, sum[i]);
        }
#pragma unroll
        for (int i = 0; i < IMAGES; i++)
            if (b0 + i < B) partial[((long long)blockIdx.x * B + b0 + i) * E + e] = sum[i];
    }
}

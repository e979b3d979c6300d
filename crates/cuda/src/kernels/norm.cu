// Group normalisation of x [B, P, C], channels last, in G groups of C / G neighbouring channels: y = act(a * xhat + b), xhat = (x - mean) * rstd,
// act 0 none, 1 silu. ab [2, B, C] holds a then b, stats [B, G, 2] mean and rstd. A bias [C] that
// x still lacks is part of what is the same for all pixels. Sums over pixels are taken in two steps, by chunks of pixels and
// then over the chunks. A thread has V neighbouring channels and loops over pixels.
// In kernels named `joined`, x is two maps: its channels from `split` on are those of `more` [B, P, C - split].

// Runs body<16 bytes at a time> on whole units of channels; where only the addresses forbid it, the same threads load the same elements one at a time.
#define BY_UNITS(T, joined, C, split, wide, body, ...) \
    if (((C) | (split)) % Lanes<T>::n != 0) body<joined, false, 1>(__VA_ARGS__); \
    else if (wide) body<joined, true, Lanes<T>::n>(__VA_ARGS__); \
    else body<joined, false, Lanes<T>::n>(__VA_ARGS__)

// Channel c of image b: which of two maps has it, its place there, and the channels of that map. Kernels of one map are compiled without
// the choice, which costs registers.
struct Place { bool second; int width; long long at; };
template <bool JOINED> DEVICE Place place_of(int split, long long b, int P, int C, int c) {
    Place place;
    place.second = JOINED && c >= split;
    place.width = !JOINED ? C : place.second ? C - split : split;
    place.at = b * P * place.width + (place.second ? c - split : c);
    return place;
}
template <class T> DEVICE T* map_at(T* x, T* more, const Place& place) { return (place.second ? more : x) + place.at; }

DEVICE float bias_of(const float* bias, int c) { return bias ? bias[c] : 0.0f; }

struct Range { long long first, last; };
DEVICE Range chunk_of(int P, int chunks) {
    const long long length = ((long long)P + chunks - 1) / chunks;
    Range r;
    r.first = min(blockIdx.x * length, (long long)P);
    r.last = min(r.first + length, (long long)P);
    return r;
}

// Per-channel sums of a tile lie in shared memory as [first or second][V][units]: neighbouring threads then access different banks.
template <int V> DEVICE int cell(int channel, int units) { return channel % V * units + channel / V; }
template <int V> DEVICE void put_sums(float* sh, const Span& s, const float (&first)[V], const float (&second)[V]) {
    if (s.row < s.rows) {
        float* mine = sh + s.row * 2 * V * s.units + s.unit;
#pragma unroll
        for (int k = 0; k < V; k++) {
            mine[k * s.units] = first[k];
            mine[(V + k) * s.units] = second[k];
        }
    }
    fold_rows(sh, s.rows, 2 * V * s.units);
}

template <bool JOINED, bool WIDE, int V, class T> DEVICE void norm_partial(const T* x, const T* more, int split, const float* bias, float* partial, int P, int C, int G, int chunks, float* sh) {
    const Range pixels = chunk_of(P, chunks);
    const int size = C / G, b = blockIdx.y;
    partial += ((long long)blockIdx.y * chunks + blockIdx.x) * G * 2;
    for (int u0 = 0; u0 < C / V; u0 += 256) {
        const Span s = span(C / V - u0);
        float sum[V] = {}, square[V] = {}, origin[V], v[V];
        if (s.row < s.rows) {
            const int c = (u0 + s.unit) * V;
            const Place place = place_of<JOINED>(split, b, P, C, c);
            const T* from = map_at(x, more, place);
#pragma unroll
            for (int k = 0; k < V; k++) {
                const int at = (c + k) / size * size;
                origin[k] = load(*map_at(x, more, place_of<JOINED>(split, b, P, C, at))) + bias_of(bias, at) - bias_of(bias, c + k);
            }
#pragma unroll 4
            for (long long p = pixels.first + s.row; p < pixels.last; p += s.rows) {
                load_run<WIDE>(from + p * place.width, v);
#pragma unroll
                for (int k = 0; k < V; k++) {
                    const float d = v[k] - origin[k];
                    sum[k] += d;
                    square[k] = fmaf(d, d, square[k]);
                }
            }
        }
        put_sums(sh, s, sum, square);
        // A group may extend over two tiles of channels; the same thread then adds both parts.
        const int c0 = u0 * V, c1 = c0 + s.units * V;
        for (int g = threadIdx.x; g <= (c1 - 1) / size; g += 256) {
            if (g < c0 / size) continue;
            float total[2] = {};
            if (g * size < c0) total[0] = partial[2 * g], total[1] = partial[2 * g + 1];
            for (int c = max(g * size, c0) - c0; c < min((g + 1) * size, c1) - c0; c++) {
                total[0] += sh[cell<V>(c, s.units)];
                total[1] += sh[V * s.units + cell<V>(c, s.units)];
            }
            partial[2 * g] = total[0];
            partial[2 * g + 1] = total[1];
        }
        __syncthreads();
    }
}

// partial [B, chunks, G, 2] = sums over a chunk of pixels of x - K and (x - K)^2, K the group's first value in the image; grid (chunks, B)
#define NORM_PARTIAL(T, t) \
    ROOMY_KERNEL norm_partial_##t(const T* x, const float* bias, float* partial, int B, int P, int C, int G, int chunks) { \
        __shared__ float sh[256 * 2 * Lanes<T>::n]; \
        BY_UNITS(T, false, C, C, aligned(x), norm_partial, x, x, C, bias, partial, P, C, G, chunks, sh); \
    } \
    ROOMY_KERNEL norm_partial_joined_##t(const T* x, const T* more, int split, const float* bias, float* partial, int B, int P, int C, int G, int chunks) { \
        __shared__ float sh[256 * 2 * Lanes<T>::n]; \
        BY_UNITS(T, true, C, split, aligned(x, more), norm_partial, x, more, split, bias, partial, P, C, G, chunks, sh); \
    }
FOR_EACH_TYPE(NORM_PARTIAL)

// Sums over chunks of the pairs that a unit has in each, `stride` pairs apart: sh[unit] and sh[units + unit]
DEVICE void sum_chunks(const float* from, long long stride, int chunks, const Span& s, double* sh) {
    if (s.row < s.rows) {
        double first = 0.0, second = 0.0;
#pragma unroll 4
        for (int k = s.row; k < chunks; k += s.rows) {
            first += from[k * stride * 2];
            second += from[k * stride * 2 + 1];
        }
        sh[s.row * 2 * s.units + s.unit] = first;
        sh[(s.row * 2 + 1) * s.units + s.unit] = second;
    }
    fold_rows(sh, s.rows, 2 * s.units);
}

template <bool JOINED, class T> DEVICE void norm_finish(const T* x, const T* more, int split, const float* bias, const float* partial, float* stats, int P, int C, int G, int chunks, double eps, double* sh) {
    const long long b = blockIdx.x;
    const double count = (double)P * (C / G);
    for (int g0 = 0; g0 < G; g0 += 256) {
        const Span s = span(G - g0);
        sum_chunks(partial + (b * chunks * G + g0 + s.unit) * 2, G, chunks, s, sh);
        if (s.row == 0) {
            const int g = g0 + s.unit;
            const double shift = sh[s.unit] / count, variance = sh[s.units + s.unit] / count - shift * shift;
            const float origin = load(*map_at(x, more, place_of<JOINED>(split, b, P, C, g * (C / G))));
            stats[(b * G + g) * 2] = (float)(origin + bias_of(bias, g * (C / G)) + shift);
            stats[(b * G + g) * 2 + 1] = (float)(1.0 / sqrt((variance < 0.0 ? 0.0 : variance) + eps));
        }
        __syncthreads();
    }
}

// stats [B, G, 2] = mean and 1 / sqrt(variance + eps) from partial [B, chunks, G, 2]; grid (B)
#define NORM_FINISH(T, t) \
    ROOMY_KERNEL norm_finish_##t(const T* x, const float* bias, const float* partial, float* stats, int B, int P, int C, int G, int chunks, double eps) { \
        __shared__ double sh[512]; \
        norm_finish<false>(x, x, C, bias, partial, stats, P, C, G, chunks, eps, sh); \
    } \
    ROOMY_KERNEL norm_finish_joined_##t(const T* x, const T* more, int split, const float* bias, const float* partial, float* stats, int B, int P, int C, int G, int chunks, double eps) { \
        __shared__ double sh[512]; \
        norm_finish<true>(x, more, split, bias, partial, stats, P, C, G, chunks, eps, sh); \
    }
FOR_EACH_TYPE(NORM_FINISH)

template <bool JOINED, bool WIDE, int V, class T> DEVICE void norm_apply(const T* x, const T* more, int split, const float* bias, const float* ab, const float* stats, T* y, int B, int P, int C, int G, int act) {
    const int b = blockIdx.y, size = C / G;
    const long long image = (long long)b * P * C;
    for (int u0 = 0; u0 < C / V; u0 += 256) {
        const Span s = span(C / V - u0);
        if (s.row >= s.rows) continue;
        const int c = (u0 + s.unit) * V;
        const Place place = place_of<JOINED>(split, b, P, C, c);
        const T* from = map_at(x, more, place);
        float scale[V], shift[V], v[V];
#pragma unroll
        for (int k = 0; k < V; k++) {
            const long long channel = (long long)b * C + c + k;
            const float* stat = stats + ((long long)b * G + (c + k) / size) * 2;
            scale[k] = ab[channel] * stat[1];
            shift[k] = ab[(long long)B * C + channel] - scale[k] * (stat[0] - bias_of(bias, c + k));
        }
        for (long long p = (long long)blockIdx.x * s.rows + s.row; p < P; p += (long long)gridDim.x * s.rows) {
            load_run<WIDE>(from + p * place.width, v);
#pragma unroll
            for (int k = 0; k < V; k++) v[k] = fmaf(v[k], scale[k], shift[k]);
            if (act) {
#pragma unroll
                for (int k = 0; k < V; k++) v[k] = silu(v[k]);
            }
            store_run<WIDE>(y + image + p * C + c, v);
        }
    }
}

// y [B, P, C] = act(a * (x - mean) * rstd + b); grid (any number of pixel blocks, B)
#define NORM_APPLY(T, t) \
    KERNEL norm_apply_##t(const T* x, const float* bias, const float* ab, const float* stats, T* y, int B, int P, int C, int G, int act) { \
        BY_UNITS(T, false, C, C, aligned(x, y), norm_apply, x, x, C, bias, ab, stats, y, B, P, C, G, act); \
    } \
    KERNEL norm_apply_joined_##t(const T* x, const T* more, int split, const float* bias, const float* ab, const float* stats, T* y, int B, int P, int C, int G, int act) { \
        BY_UNITS(T, true, C, split, aligned(x, more, y), norm_apply, x, more, split, bias, ab, stats, y, B, P, C, G, act); \
    }
FOR_EACH_TYPE(NORM_APPLY)

template <bool JOINED, bool WIDE, int V, class T>
DEVICE void norm_grad_partial(const T* x, const T* more, int split, const float* bias, const T* dy, const float* ab, const float* stats, float* partial, int B, int P, int C, int G, int chunks, int act, float* sh) {
    const Range pixels = chunk_of(P, chunks);
    const int b = blockIdx.y, size = C / G;
    dy += (long long)b * P * C;
    partial += ((long long)b * chunks + blockIdx.x) * C * 2;
    for (int u0 = 0; u0 < C / V; u0 += 256) {
        const Span s = span(C / V - u0);
        float sum[V] = {}, product[V] = {}, a[V], shift[V], rstd[V], offset[V], v[V], g[V];
        if (s.row < s.rows) {
            const int c = (u0 + s.unit) * V;
            const Place place = place_of<JOINED>(split, b, P, C, c);
            const T* from = map_at(x, more, place);
#pragma unroll
            for (int k = 0; k < V; k++) {
                const float* stat = stats + ((long long)b * G + (c + k) / size) * 2;
                a[k] = ab[(long long)b * C + c + k];
                shift[k] = ab[((long long)B + b) * C + c + k];
                rstd[k] = stat[1];
                offset[k] = (bias_of(bias, c + k) - stat[0]) * stat[1];
            }
#pragma unroll 2
            for (long long p = pixels.first + s.row; p < pixels.last; p += s.rows) {
                load_run<WIDE>(from + p * place.width, v);
                load_run<WIDE>(dy + p * C + c, g);
#pragma unroll
                for (int k = 0; k < V; k++) {
                    const float xhat = fmaf(v[k], rstd[k], offset[k]);
                    const float du = act ? g[k] * silu_slope(fmaf(a[k], xhat, shift[k])) : g[k];
                    sum[k] += du;
                    product[k] = fmaf(du, xhat, product[k]);
                }
            }
        }
        put_sums(sh, s, sum, product);
        for (int c = threadIdx.x; c < s.units * V; c += 256) {
            partial[2 * (u0 * V + c)] = sh[cell<V>(c, s.units)];
            partial[2 * (u0 * V + c) + 1] = sh[V * s.units + cell<V>(c, s.units)];
        }
        __syncthreads();
    }
}

// partial [B, chunks, C, 2] = sums over a chunk of pixels of du = dy * act'(u) and of du * xhat; grid (chunks, B)
#define NORM_GRAD_PARTIAL(T, t) \
    ROOMY_KERNEL norm_grad_partial_##t(const T* x, const float* bias, const T* dy, const float* ab, const float* stats, float* partial, int B, int P, int C, int G, int chunks, int act) { \
        __shared__ float sh[256 * 2 * Lanes<T>::n]; \
        BY_UNITS(T, false, C, C, aligned(x, dy), norm_grad_partial, x, x, C, bias, dy, ab, stats, partial, B, P, C, G, chunks, act, sh); \
    } \
    ROOMY_KERNEL norm_grad_partial_joined_##t(const T* x, const T* more, int split, const float* bias, const T* dy, const float* ab, const float* stats, float* partial, \
                                              int B, int P, int C, int G, int chunks, int act) { \
        __shared__ float sh[256 * 2 * Lanes<T>::n]; \
        BY_UNITS(T, true, C, split, aligned(x, more, dy), norm_grad_partial, x, more, split, bias, dy, ab, stats, partial, B, P, C, G, chunks, act, sh); \
    }
FOR_EACH_TYPE(NORM_GRAD_PARTIAL)

// dab [2, B, C] = sums of du * xhat and du over the image, group [B, G, 2] = group means of a * du and a * du * xhat; grid (B)
KERNEL norm_grad_finish(const float* partial, const float* ab, float* dab, float* group, int B, int P, int C, int G, int chunks) {
    __shared__ double sh[512];
    const int size = C / G, at_once = max(256 / size, 1);
    const long long b = blockIdx.x;
    const double count = (double)P * size;
    for (int g0 = 0; g0 < G; g0 += at_once) {
        const int groups = min(at_once, G - g0), t = threadIdx.x;
        double mean = 0.0, slope = 0.0;
        for (int c0 = 0; c0 < groups * size; c0 += 256) { // more than one tile only for a single group wider than 256
            const Span s = span(groups * size - c0);
            const long long c = (long long)g0 * size + c0 + s.unit;
            sum_chunks(partial + (b * chunks * C + c) * 2, C, chunks, s, sh);
            if (s.row == 0) {
                dab[b * C + c] = (float)sh[s.units + s.unit];
                dab[(B + b) * C + c] = (float)sh[s.unit];
                sh[s.unit] *= ab[b * C + c];
                sh[s.units + s.unit] *= ab[b * C + c];
            }
            __syncthreads();
            if (t < groups)
                for (int j = max(t * size - c0, 0); j < min((t + 1) * size - c0, s.units); j++) {
                    mean += sh[j];
                    slope += sh[s.units + j];
                }
            __syncthreads();
        }
        if (t < groups) {
            group[(b * G + g0 + t) * 2] = (float)(mean / count);
            group[(b * G + g0 + t) * 2 + 1] = (float)(slope / count);
        }
    }
}

template <bool JOINED, bool WIDE, int V, class T>
DEVICE void norm_grad_apply(const T* x, const T* more, int split, const float* bias, const T* dy, const float* ab, const float* stats, const float* group,
                            const T* earlier, const T* earlier_more, T* dx, T* dx_more, int B, int P, int C, int G, int act) {
    const int b = blockIdx.y, size = C / G;
    const long long image = (long long)b * P * C;
    for (int u0 = 0; u0 < C / V; u0 += 256) {
        const Span s = span(C / V - u0);
        if (s.row >= s.rows) continue;
        const int c = (u0 + s.unit) * V;
        const Place place = place_of<JOINED>(split, b, P, C, c);
        const T *from = map_at(x, more, place), *before = place.second ? earlier_more : earlier;
        T* to = map_at(dx, dx_more, place);
        if (before) before += place.at;
        // dx = scale * du + (slope * (x - mean) + rest), with the part that is the same for all pixels computed once;
        // x - mean first, because a small deviation from a large mean would be lost in the product of that mean
        float mean[V], scale[V], shift[V], slope[V], rest[V], v[V], g[V];
#pragma unroll
        for (int k = 0; k < V; k++) {
            const long long channel = (long long)b * C + c + k, at = ((long long)b * G + (c + k) / size) * 2;
            const float rstd = stats[at + 1];
            mean[k] = stats[at] - bias_of(bias, c + k);
            scale[k] = ab[channel] * rstd;
            shift[k] = ab[(long long)B * C + channel];
            slope[k] = -rstd * rstd * group[at + 1];
            rest[k] = -rstd * group[at];
        }
        for (long long p = (long long)blockIdx.x * s.rows + s.row; p < P; p += (long long)gridDim.x * s.rows) {
            load_run<WIDE>(from + p * place.width, v);
            load_run<WIDE>(dy + image + p * C + c, g);
#pragma unroll
            for (int k = 0; k < V; k++) {
                v[k] -= mean[k];
                const float du = act ? g[k] * silu_slope(fmaf(v[k], scale[k], shift[k])) : g[k];
                v[k] = fmaf(scale[k], du, fmaf(slope[k], v[k], rest[k]));
            }
            if (before) {
                load_run<WIDE>(before + p * place.width, g);
#pragma unroll
                for (int k = 0; k < V; k++) v[k] += g[k];
            }
            store_run<WIDE>(to + p * place.width, v);
        }
    }
}

// dx [B, P, C] = rstd * (a * du - group mean of a * du - xhat * group mean of a * du * xhat), + earlier [B, P, C] if there is one;
// dx and earlier are split like x; grid (any number of pixel blocks, B)
#define NORM_GRAD_APPLY(T, t) \
    KERNEL norm_grad_apply_##t(const T* x, const float* bias, const T* dy, const float* ab, const float* stats, const float* group, const T* earlier, T* dx, int B, int P, int C, int G, int act) { \
        BY_UNITS(T, false, C, C, aligned(x, dy, dx, earlier), norm_grad_apply, x, x, C, bias, dy, ab, stats, group, earlier, earlier, dx, dx, B, P, C, G, act); \
    } \
    KERNEL norm_grad_apply_joined_##t(const T* x, const T* more, int split, const float* bias, const T* dy, const float* ab, const float* stats, const float* group, \
                                      const T* earlier, const T* earlier_more, T* dx, T* dx_more, int B, int P, int C, int G, int act) { \
        BY_UNITS(T, true, C, split, aligned(x, more, dy, dx, dx_more) && aligned(earlier, earlier_more), norm_grad_apply, \
                 x, more, split, bias, dy, ab, stats, group, earlier, earlier_more, dx, dx_more, B, P, C, G, act); \
    }
FOR_EACH_TYPE(NORM_GRAD_APPLY)

// ab [2, B, C]: a = w * (1 + scale), b = bias * (1 + scale) + shift with e [B, 2C] = (scale, shift), or w and bias themselves without e
ROOMY_KERNEL modulate(const float* w, const float* bias, const float* e, float* ab, int B, int C) {
    const long long n = (long long)B * C;
    for (long long i = thread_index(); i < n; i += thread_count()) {
        const long long b = quotient(i, C), c = i - b * C;
        const float gain = e ? 1.0f + e[b * 2 * C + c] : 1.0f;
        ab[i] = w[c] * gain;
        ab[n + i] = e ? bias[c] * gain + e[(b * 2 + 1) * C + c] : bias[c];
    }
}

// From dab [2, B, C]: dwb [2, C] = sums over the images of da * (1 + scale) and db * (1 + scale), de [B, 2C] = (da * w + db * bias, db); one thread per channel
KERNEL modulate_grad(const float* dab, const float* w, const float* bias, const float* e, float* de, float* dwb, int B, int C) {
    for (long long c = thread_index(); c < C; c += thread_count()) {
        float dw = 0.0f, dbias = 0.0f;
#pragma unroll 4
        for (long long b = 0; b < B; b++) {
            const float da = dab[b * C + c], db = dab[(B + b) * C + c];
            const float gain = e ? 1.0f + e[b * 2 * C + c] : 1.0f;
            dw += da * gain;
            dbias += db * gain;
            if (de) {
                de[b * 2 * C + c] = da * w[c] + db * bias[c];
                de[(b * 2 + 1) * C + c] = db;
            }
        }
        dwb[c] = dw;
        dwb[C + c] = dbias;
    }
}

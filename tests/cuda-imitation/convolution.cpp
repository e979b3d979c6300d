// Convolutions by plain loops over packed floats.
#include "convolution.h"

#include <cstdlib>
#include <vector>

namespace {

using Order = std::array<int, 4>;

// Calls `visit(index in the order of packing, index in memory)` for each element.
template <class Visit> void each(const Tensor& t, const Order& order, Visit visit) {
    const auto [a, b, c, d] = order;
    int64_t packed = 0;
    for (int64_t i = 0; i < t.dims[a]; i++)
        for (int64_t j = 0; j < t.dims[b]; j++)
            for (int64_t k = 0; k < t.dims[c]; k++) {
                const int64_t at = i * t.strides[a] + j * t.strides[b] + k * t.strides[c];
                for (int64_t l = 0; l < t.dims[d]; l++) visit(packed++, at + l * t.strides[d]);
            }
}

std::vector<float> packed(const Tensor& t, const Order& order, const void* at, bool tf32) {
    std::vector<float> all(t.dims[0] * t.dims[1] * t.dims[2] * t.dims[3]);
    each(t, order, [&](int64_t i, int64_t place) {
        const float v = read_number<float>(at, t.kind, place);
        all[i] = tf32 ? to_tf32(v) : v;
    });
    return all;
}

// sum += factor * row
inline void add(float* sum, const float* row, float factor, int64_t n) {
    for (int64_t i = 0; i < n; i++) sum[i] += factor * row[i];
}

}  // namespace

void convolve(const Convolution& c, Rounding rounding, void* x_at, void* w_at, void* y_at) {
    const bool tf32 = rounding == Rounding::Tf32 && c.x.kind == Number::F32;
    const auto [batch, inputs, height, width] = c.x.dims;
    const auto [outputs, w_inputs, rows, columns] = c.w.dims;
    const int64_t out_height = c.y.dims[2], out_width = c.y.dims[3];
    // Channels last; filters as [row][column][input][output], or for the gradient of the input with the last two exchanged.
    const Order last = {0, 2, 3, 1}, filters = c.pass == Pass::InputGradient ? Order{2, 3, 0, 1} : Order{2, 3, 1, 0};
    std::vector<float> x, w, y;
    x = c.pass == Pass::InputGradient ? std::vector<float>(batch * height * width * inputs) : packed(c.x, last, x_at, tf32);
    w = c.pass == Pass::WeightGradient ? std::vector<float>(outputs * w_inputs * rows * columns) : packed(c.w, filters, w_at, tf32);
    y = c.pass == Pass::Forward ? std::vector<float>(batch * out_height * out_width * outputs) : packed(c.y, last, y_at, tf32);
    for (int64_t n = 0; n < batch; n++)
        for (int64_t oy = 0; oy < out_height; oy++)
            for (int64_t ox = 0; ox < out_width; ox++) {
                float* out = &y[((n * out_height + oy) * out_width + ox) * outputs];
                for (int64_t r = 0; r < rows; r++)
                    for (int64_t s = 0; s < columns; s++) {
                        const int64_t iy = oy * c.stride[0] - c.before[0] + r, ix = ox * c.stride[1] - c.before[1] + s;
                        if (iy < 0 || iy >= height || ix < 0 || ix >= width) continue;
                        float* in = &x[((n * height + iy) * width + ix) * inputs];
                        float* taps = &w[(r * columns + s) * inputs * outputs];
                        switch (c.pass) {
                        case Pass::Forward:
                            for (int64_t i = 0; i < inputs; i++) add(out, taps + i * outputs, in[i], outputs);
                            break;
                        case Pass::InputGradient:
                            for (int64_t o = 0; o < outputs; o++) add(in, taps + o * inputs, out[o], inputs);
                            break;
                        case Pass::WeightGradient:
                            for (int64_t i = 0; i < inputs; i++) add(taps + i * outputs, out, in[i], outputs);
                            break;
                        }
                    }
            }
    const bool to_x = c.pass == Pass::InputGradient, to_w = c.pass == Pass::WeightGradient;
    const Tensor& tensor = to_x ? c.x : to_w ? c.w : c.y;
    const std::vector<float>& result = to_x ? x : to_w ? w : y;
    void* to = to_x ? x_at : to_w ? w_at : y_at;
    each(tensor, to_w ? filters : last, [&](int64_t i, int64_t place) {
        float v = (float)c.alpha * result[i];
        // Another order of the sum each time.
        if (rounding == Rounding::Nondeterministic) v *= 1.0f + (float)(rand() % 3 - 1) * 0x1p-22f;
        if (c.beta != 0) v += (float)c.beta * read_number<float>(to, tensor.kind, place);
        write_number(to, tensor.kind, place, v);
    });
}

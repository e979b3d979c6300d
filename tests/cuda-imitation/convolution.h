// A convolution or one of its gradients, on tensors of any strides.
#pragma once
#include <array>
#include <cstdint>

#include "numbers.h"

enum class Pass { Forward, InputGradient, WeightGradient };

struct Tensor {
    Number kind;
    // Batch, channels, height, width; for filters outputs, inputs, height, width.
    std::array<int64_t, 4> dims, strides;
    int64_t id, alignment;
};

struct Convolution {
    Pass pass;
    Tensor x, w, y;
    std::array<int64_t, 2> stride, before, after;
    double alpha, beta;
};

// How an engine rounds.
enum class Rounding { Exact, Tf32, Nondeterministic };

// Computes into the result of the pass, from and to the addresses of x, w and y.
void convolve(const Convolution& c, Rounding rounding, void* x, void* w, void* y);

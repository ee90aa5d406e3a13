// Types and functions that all kernels share.
//
// Values are stored as T, which is `float` or `__half`; all arithmetic is in `float`.
// Images have the layout [batch, height, width, channels]. Every kernel takes one structure, which
// `arguments.rs` declares with the same fields. Each thread computes one element, or one pack of
// neighbouring channels. In reductions, a block may compute one element.
#pragma once
#include <cuda_fp16.h>

constexpr int AXES_MAX = 9;

// Neighbouring elements that one access reads or writes: 8 bytes of __half, 16 bytes of float.
constexpr int PACK = 4;

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T values[N];
};

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline void from_float(float& y, float x) { y = x; }
__device__ inline void from_float(__half& y, float x) { y = __float2half(x); }

// Reads N neighbouring elements, the first of which is `index`, a multiple of N.
template <int N, class T>
__device__ inline void read(float (&x)[N], const T* from, unsigned index) {
    const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from + index);
    for (int k = 0; k < N; ++k) x[k] = to_float(pack.values[k]);
}

template <int N, class T>
__device__ inline void write(T* to, unsigned index, const float (&x)[N]) {
    Pack<T, N> pack;
    for (int k = 0; k < N; ++k) from_float(pack.values[k], x[k]);
    *reinterpret_cast<Pack<T, N>*>(to + index) = pack;
}

// Constants that repeat: element i has the number i % period.
struct Periodic {
    const float* numbers;
    unsigned period;
};

template <int N>
__device__ inline void read(float (&x)[N], const Periodic& constants, unsigned index) {
    unsigned number = index % constants.period;
    for (int k = 0; k < N; ++k) {
        x[k] = constants.numbers[number];
        number = number + 1 == constants.period ? 0 : number + 1;
    }
}

// Return the larger or the smaller operand, or NaN if one is NaN: an overflow must reach the
// network's outputs, where NaN is refused. `smaller` tests only `x`, since its `y` is a constant.
__device__ inline float larger(float x, float y) { return x <= y || y != y ? y : x; }
__device__ inline float smaller(float x, float y) { return x >= y ? y : x; }

// Functions of one number. `ActivationPlan::of` in `work/elements.rs` uses the same numbers.
enum ActivationKind {
    NONE, RELU, PRELU, LEAKY_RELU, SIGMOID, CLIP, HARD_SIGMOID, HARD_SWISH, TANH, EXP, SQRT, ABS
};

struct Activation {
    Periodic slopes;
    int kind;
    float a;
    float b;
};

__device__ inline float hard_sigmoid(float x, float alpha, float beta) {
    return smaller(larger(alpha * x + beta, 0.0f), 1.0f);
}

__device__ inline float apply_activation(const Activation& activation, float x, unsigned index) {
    switch (activation.kind) {
        case RELU: return larger(x, 0.0f);
        case PRELU:
            return x > 0.0f ? x : x * activation.slopes.numbers[index % activation.slopes.period];
        case LEAKY_RELU: return x > 0.0f ? x : x * activation.a;
        case SIGMOID: return 1.0f / (1.0f + expf(-x));
        case CLIP: return smaller(larger(x, activation.a), activation.b);
        case HARD_SIGMOID: return hard_sigmoid(x, activation.a, activation.b);
        case HARD_SWISH: return x * hard_sigmoid(x, 1.0f / 6.0f, 0.5f);
        case TANH: return tanhf(x);
        case EXP: return expf(x);
        case SQRT: return sqrtf(x);
        case ABS: return fabsf(x);
        default: return x;
    }
}

// Applied to a sum before it is stored: activation(sum × scale + shift + residual).
struct Epilogue {
    Periodic scale;
    Periodic shift;
    const void* residual;
    Activation activation;
};

template <class T, int N>
__device__ inline void apply_epilogue(float (&x)[N], const Epilogue& epilogue, unsigned index) {
    float other[N];
    if (epilogue.scale.numbers) {
        read(other, epilogue.scale, index);
        for (int k = 0; k < N; ++k) x[k] *= other[k];
    }
    if (epilogue.shift.numbers) {
        read(other, epilogue.shift, index);
        for (int k = 0; k < N; ++k) x[k] += other[k];
    }
    if (epilogue.residual) {
        read(other, static_cast<const T*>(epilogue.residual), index);
        for (int k = 0; k < N; ++k) x[k] += other[k];
    }
    for (int k = 0; k < N; ++k) x[k] = apply_activation(epilogue.activation, x[k], index + k);
}

// A window that slides over an image, and the sizes of the input and the output image.
struct Window {
    unsigned channels;
    int height, width;
    int out_height, out_width;
    int kernel_height, kernel_width;
    int stride_height, stride_width;
    int dilation_height, dilation_width;
    int top, left;
};

// Position of one element of the output images.
struct Position {
    unsigned channel;
    int column, row;
    unsigned item;
};

__device__ inline Position find_position(unsigned index, unsigned channels, int height, int width) {
    Position position;
    position.channel = index % channels;
    index /= channels;
    position.column = index % width;
    index /= width;
    position.row = index % height;
    position.item = index / height;
    return position;
}

__device__ inline bool is_inside(const Window& w, int row, int column) {
    return row >= 0 && row < w.height && column >= 0 && column < w.width;
}

// Returns the number of this thread in the grid, which is the number of its element or pack.
__device__ inline unsigned thread_number() { return blockIdx.x * blockDim.x + threadIdx.x; }

#define KERNEL(NAME, ARGUMENTS)                                                      \
    extern "C" __global__ void NAME##_f32(ARGUMENTS a) { NAME<float, 1>(a); }        \
    extern "C" __global__ void NAME##_f16(ARGUMENTS a) { NAME<__half, 1>(a); }

#define PACKED_KERNEL(NAME, ARGUMENTS)                                               \
    KERNEL(NAME, ARGUMENTS)                                                          \
    extern "C" __global__ void NAME##_f32_packed(ARGUMENTS a) { NAME<float, PACK>(a); } \
    extern "C" __global__ void NAME##_f16_packed(ARGUMENTS a) { NAME<__half, PACK>(a); }

// Functions of each element, functions of two values, copies and fills.
#include "common.cuh"

struct ElementwiseArguments {
    void* y;
    const void* x;
    Epilogue epilogue;
    unsigned count;
};

template <class T, int N>
__device__ void elementwise(const ElementwiseArguments& a) {
    const unsigned index = thread_number() * N;
    if (index >= a.count) return;
    float x[N];
    read(x, static_cast<const T*>(a.x), index);
    apply_epilogue<T>(x, a.epilogue, index);
    write(static_cast<T*>(a.y), index, x);
}
PACKED_KERNEL(elementwise, ElementwiseArguments)

// Strides of two arrays of one shape. The last axis is the innermost.
struct StridedAxes {
    unsigned sizes[AXES_MAX];
    unsigned first[AXES_MAX];
    unsigned second[AXES_MAX];
    int axis_count;
};

__device__ inline void find_offsets(const StridedAxes& axes, unsigned index, unsigned& first,
                                    unsigned& second) {
    first = second = 0;
    for (int axis = axes.axis_count - 1; axis >= 0; --axis) {
        const unsigned coordinate = index % axes.sizes[axis];
        index /= axes.sizes[axis];
        first += coordinate * axes.first[axis];
        second += coordinate * axes.second[axis];
    }
}

// y[second] = x[first] for every element: transposes, concatenates, slices and repeats.
struct CopyArguments {
    void* y;
    const void* x;
    StridedAxes axes;
    unsigned count;
};

template <class X, class Y>
__device__ void copy(const CopyArguments& a) {
    const unsigned index = thread_number();
    if (index >= a.count) return;
    unsigned from, to;
    find_offsets(a.axes, index, from, to);
    from_float(static_cast<Y*>(a.y)[to], to_float(static_cast<const X*>(a.x)[from]));
}
extern "C" __global__ void copy_f32(CopyArguments a) { copy<float, float>(a); }
extern "C" __global__ void copy_f16(CopyArguments a) { copy<__half, __half>(a); }
extern "C" __global__ void copy_f32_f16(CopyArguments a) { copy<float, __half>(a); }
extern "C" __global__ void copy_f16_f32(CopyArguments a) { copy<__half, float>(a); }

enum BinaryKind { ADD, SUB, MUL, DIV };

struct BinaryArguments {
    void* y;
    const void* a;
    const void* b;
    StridedAxes axes;
    int kind;
    unsigned count;
};

template <class T, int N>
__device__ void binary(const BinaryArguments& a) {
    const unsigned index = thread_number();
    if (index >= a.count) return;
    unsigned first, second;
    find_offsets(a.axes, index, first, second);
    const float left = to_float(static_cast<const T*>(a.a)[first]);
    const float right = to_float(static_cast<const T*>(a.b)[second]);
    float result;
    switch (a.kind) {
        case ADD: result = left + right; break;
        case SUB: result = left - right; break;
        case MUL: result = left * right; break;
        default: result = left / right; break;
    }
    from_float(static_cast<T*>(a.y)[index], result);
}
KERNEL(binary, BinaryArguments)

struct FillArguments {
    void* y;
    float value;
    unsigned count;
};

template <class T, int N>
__device__ void fill(const FillArguments& a) {
    const unsigned index = thread_number();
    if (index < a.count) from_float(static_cast<T*>(a.y)[index], a.value);
}
KERNEL(fill, FillArguments)

// Many elements to one. Each result is summed by one thread in one order, so that it does not
// depend on the batch.
#include "common.cuh"

enum ReductionKind { MEAN_OF_ALL, SUM, LARGEST_OF_ALL, L2 };

struct ReduceArguments {
    void* y;
    const void* x;
    unsigned kept_sizes[AXES_MAX];
    unsigned kept_strides[AXES_MAX];
    unsigned sizes[AXES_MAX];
    unsigned strides[AXES_MAX];
    int kept_axes;
    int axes;
    int kind;
    unsigned length;         // elements behind one result
    unsigned count;
};

__device__ inline unsigned offset(const unsigned* sizes, const unsigned* strides, int axes, unsigned at) {
    unsigned found = 0;
    for (int axis = axes - 1; axis >= 0; --axis) {
        found += at % sizes[axis] * strides[axis];
        at /= sizes[axis];
    }
    return found;
}

template <class T, int N>
__device__ void reduce(const ReduceArguments& a) {
    const unsigned at = thread_number();
    if (at >= a.count) return;
    const T* x = static_cast<const T*>(a.x) + offset(a.kept_sizes, a.kept_strides, a.kept_axes, at);
    float result = a.kind == LARGEST_OF_ALL ? -INFINITY : 0.0f;
    for (unsigned i = 0; i < a.length; ++i) {
        const float value = to_float(x[offset(a.sizes, a.strides, a.axes, i)]);
        switch (a.kind) {
            case LARGEST_OF_ALL: result = larger(value, result); break;
            case L2: result += value * value; break;
            default: result += value; break;
        }
    }
    if (a.kind == MEAN_OF_ALL) result /= a.length;
    if (a.kind == L2) result = sqrtf(result);
    from_float(static_cast<T*>(a.y)[at], result);
}
KERNEL(reduce, ReduceArguments)

// Exponentials along an axis over their sum: [outer, length, inner].
struct SoftmaxArguments {
    void* y;
    const void* x;
    unsigned length;
    unsigned inner;
    unsigned count;          // outer × inner
};

template <class T, int N>
__device__ void softmax(const SoftmaxArguments& a) {
    const unsigned at = thread_number();
    if (at >= a.count) return;
    const unsigned start = at / a.inner * a.length * a.inner + at % a.inner;
    const T* x = static_cast<const T*>(a.x) + start;
    T* y = static_cast<T*>(a.y) + start;
    float largest = -INFINITY, sum = 0.0f;
    for (unsigned i = 0; i < a.length; ++i) largest = fmaxf(largest, to_float(x[i * a.inner]));
    for (unsigned i = 0; i < a.length; ++i) sum += expf(to_float(x[i * a.inner]) - largest);
    for (unsigned i = 0; i < a.length; ++i) from_float(y[i * a.inner], expf(to_float(x[i * a.inner]) - largest) / sum);
}
KERNEL(softmax, SoftmaxArguments)

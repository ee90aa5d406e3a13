// Many elements to one. Who finds a result, one thread or a block of them, stands in the plan, and
// they join elements in one order, so that a result does not depend on the batch.
#include "common.cuh"

// The threads of a block that finds one result: as many as `gpu.rs` launches.
constexpr unsigned BLOCK = 256;

enum ReductionKind { MEAN_OF_ALL, SUM, LARGEST_OF_ALL, L2 };

__device__ inline float join(int kind, float x, float y) { return kind == LARGEST_OF_ALL ? larger(x, y) : x + y; }

// What joins with anything to that.
__device__ inline float nothing(int kind) { return kind == LARGEST_OF_ALL ? -INFINITY : 0.0f; }

// One thread finds a result.
struct Thread {
    static __device__ unsigned result() { return thread_number(); }
    static __device__ unsigned first() { return 0; }
    static __device__ unsigned step() { return 1; }
    static __device__ float join_all(int, float mine) { return mine; }
};

// A block finds a result: each thread joins every 256th element, then halves of the block are
// joined until one number is left, which all threads get.
struct Block {
    static __device__ unsigned result() { return blockIdx.x; }
    static __device__ unsigned first() { return threadIdx.x; }
    static __device__ unsigned step() { return BLOCK; }
    static __device__ float join_all(int kind, float mine) {
        __shared__ float found[BLOCK];
        found[threadIdx.x] = mine;
        for (unsigned half = BLOCK / 2; half > 0; half /= 2) {
            __syncthreads();
            if (threadIdx.x < half) found[threadIdx.x] = join(kind, found[threadIdx.x], found[threadIdx.x + half]);
        }
        __syncthreads();
        const float all = found[0];
        // The next call must not write before everyone has read.
        __syncthreads();
        return all;
    }
};

struct ReduceArguments {
    void* y;
    const void* x;
    unsigned kept_sizes[AXES_MAX];
    unsigned kept_strides[AXES_MAX];
    unsigned reduced_sizes[AXES_MAX];
    unsigned reduced_strides[AXES_MAX];
    int kept_axis_count;
    int reduced_axis_count;
    int kind;
    unsigned length;         // elements behind one result
    unsigned count;
};

// Where element `at` lies. The outermost axis takes what is left, so that one axis needs no division.
__device__ inline unsigned find_offset(const unsigned* sizes, const unsigned* strides, int axis_count, unsigned at) {
    unsigned offset = 0;
    for (int axis = axis_count - 1; axis > 0; --axis) {
        offset += at % sizes[axis] * strides[axis];
        at /= sizes[axis];
    }
    return offset + at * strides[0];
}

template <class T, class Team>
__device__ void reduce_by(const ReduceArguments& a) {
    const unsigned at = Team::result();
    if (at >= a.count) return;
    const T* x = static_cast<const T*>(a.x) + find_offset(a.kept_sizes, a.kept_strides, a.kept_axis_count, at);
    float result = nothing(a.kind);
    for (unsigned i = Team::first(); i < a.length; i += Team::step()) {
        const unsigned offset = find_offset(a.reduced_sizes, a.reduced_strides, a.reduced_axis_count, i);
        const float value = to_float(x[offset]);
        result = join(a.kind, result, a.kind == L2 ? value * value : value);
    }
    result = Team::join_all(a.kind, result);
    if (Team::first() != 0) return;
    if (a.kind == MEAN_OF_ALL) result /= a.length;
    if (a.kind == L2) result = sqrtf(result);
    from_float(static_cast<T*>(a.y)[at], result);
}

template <class T, int N>
__device__ void reduce(const ReduceArguments& a) { reduce_by<T, Thread>(a); }
KERNEL(reduce, ReduceArguments)

template <class T, int N>
__device__ void reduce_block(const ReduceArguments& a) { reduce_by<T, Block>(a); }
KERNEL(reduce_block, ReduceArguments)

// Exponentials along an axis over their sum: [outer, length, inner].
struct SoftmaxArguments {
    void* y;
    const void* x;
    unsigned length;
    unsigned inner;
    unsigned count;          // outer × inner
};

template <class T, class Team>
__device__ void softmax_by(const SoftmaxArguments& a) {
    const unsigned at = Team::result();
    if (at >= a.count) return;
    const unsigned start = at / a.inner * a.length * a.inner + at % a.inner;
    const T* x = static_cast<const T*>(a.x) + start;
    T* y = static_cast<T*>(a.y) + start;
    const unsigned first = Team::first(), step = Team::step();
    float largest = nothing(LARGEST_OF_ALL), sum = nothing(SUM);
    for (unsigned i = first; i < a.length; i += step) largest = larger(largest, to_float(x[i * a.inner]));
    largest = Team::join_all(LARGEST_OF_ALL, largest);
    for (unsigned i = first; i < a.length; i += step) sum += expf(to_float(x[i * a.inner]) - largest);
    sum = Team::join_all(SUM, sum);
    for (unsigned i = first; i < a.length; i += step) from_float(y[i * a.inner], expf(to_float(x[i * a.inner]) - largest) / sum);
}

template <class T, int N>
__device__ void softmax(const SoftmaxArguments& a) { softmax_by<T, Thread>(a); }
KERNEL(softmax, SoftmaxArguments)

template <class T, int N>
__device__ void softmax_block(const SoftmaxArguments& a) { softmax_by<T, Block>(a); }
KERNEL(softmax_block, SoftmaxArguments)

// Reductions of many elements to one result. The plan decides whether one thread or one block
// computes a result. Each of them combines elements in a fixed order, so that a result does not
// depend on the batch.
#include "common.cuh"

// Threads of a block: as many as `gpu.rs` launches.
constexpr unsigned BLOCK_THREADS = 256;

enum ReductionKind { REDUCE_MEAN, REDUCE_SUM, REDUCE_MAX, REDUCE_L2 };

__device__ inline float combine(int kind, float x, float y) {
    return kind == REDUCE_MAX ? larger(x, y) : x + y;
}

// Returns the number that leaves any other number unchanged in `combine`.
__device__ inline float identity_element(int kind) { return kind == REDUCE_MAX ? -INFINITY : 0.0f; }

// One thread computes a result.
struct ThreadScope {
    static __device__ unsigned result_index() { return thread_number(); }
    static __device__ unsigned first_element() { return 0; }
    static __device__ unsigned step() { return 1; }
    static __device__ float combine_all(int, float value) { return value; }
};

// One block computes a result: each thread combines every 256th element, then the halves of the
// block are combined until one number is left, which all threads receive.
struct BlockScope {
    static __device__ unsigned result_index() { return blockIdx.x; }
    static __device__ unsigned first_element() { return threadIdx.x; }
    static __device__ unsigned step() { return BLOCK_THREADS; }
    static __device__ float combine_all(int kind, float value) {
        __shared__ float partial[BLOCK_THREADS];
        partial[threadIdx.x] = value;
        for (unsigned half = BLOCK_THREADS / 2; half > 0; half /= 2) {
            __syncthreads();
            if (threadIdx.x < half)
                partial[threadIdx.x] =
                    combine(kind, partial[threadIdx.x], partial[threadIdx.x + half]);
        }
        __syncthreads();
        const float all = partial[0];
        // The next call must not write before all threads have read.
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
    unsigned length;         // elements reduced to one result
    unsigned count;
};

// Returns the offset of element `index`. The outermost axis needs no division, since its coordinate
// is what the other axes leave of the index.
__device__ inline unsigned find_offset(const unsigned* sizes, const unsigned* strides,
                                       int axis_count, unsigned index) {
    unsigned offset = 0;
    for (int axis = axis_count - 1; axis > 0; --axis) {
        offset += index % sizes[axis] * strides[axis];
        index /= sizes[axis];
    }
    return offset + index * strides[0];
}

template <class T, class Scope>
__device__ void reduce_in_scope(const ReduceArguments& a) {
    const unsigned index = Scope::result_index();
    if (index >= a.count) return;
    const T* x = static_cast<const T*>(a.x) +
                 find_offset(a.kept_sizes, a.kept_strides, a.kept_axis_count, index);
    float result = identity_element(a.kind);
    for (unsigned i = Scope::first_element(); i < a.length; i += Scope::step()) {
        const unsigned offset =
            find_offset(a.reduced_sizes, a.reduced_strides, a.reduced_axis_count, i);
        const float value = to_float(x[offset]);
        result = combine(a.kind, result, a.kind == REDUCE_L2 ? value * value : value);
    }
    result = Scope::combine_all(a.kind, result);
    if (Scope::first_element() != 0) return;
    if (a.kind == REDUCE_MEAN) result /= a.length;
    if (a.kind == REDUCE_L2) result = sqrtf(result);
    from_float(static_cast<T*>(a.y)[index], result);
}

template <class T, int N>
__device__ void reduce(const ReduceArguments& a) { reduce_in_scope<T, ThreadScope>(a); }
KERNEL(reduce, ReduceArguments)

template <class T, int N>
__device__ void reduce_block(const ReduceArguments& a) { reduce_in_scope<T, BlockScope>(a); }
KERNEL(reduce_block, ReduceArguments)

// Softmax along the middle axis of [outer, length, inner]: exponentials divided by their sum.
struct SoftmaxArguments {
    void* y;
    const void* x;
    unsigned length;
    unsigned inner;
    unsigned count;          // outer × inner
};

template <class T, class Scope>
__device__ void softmax_in_scope(const SoftmaxArguments& a) {
    const unsigned index = Scope::result_index();
    if (index >= a.count) return;
    const unsigned start = index / a.inner * a.length * a.inner + index % a.inner;
    const T* x = static_cast<const T*>(a.x) + start;
    T* y = static_cast<T*>(a.y) + start;
    const unsigned first = Scope::first_element(), step = Scope::step();
    float largest = identity_element(REDUCE_MAX), sum = identity_element(REDUCE_SUM);
    for (unsigned i = first; i < a.length; i += step)
        largest = larger(largest, to_float(x[i * a.inner]));
    largest = Scope::combine_all(REDUCE_MAX, largest);
    for (unsigned i = first; i < a.length; i += step)
        sum += expf(to_float(x[i * a.inner]) - largest);
    sum = Scope::combine_all(REDUCE_SUM, sum);
    for (unsigned i = first; i < a.length; i += step)
        from_float(y[i * a.inner], expf(to_float(x[i * a.inner]) - largest) / sum);
}

template <class T, int N>
__device__ void softmax(const SoftmaxArguments& a) { softmax_in_scope<T, ThreadScope>(a); }
KERNEL(softmax, SoftmaxArguments)

template <class T, int N>
__device__ void softmax_block(const SoftmaxArguments& a) { softmax_in_scope<T, BlockScope>(a); }
KERNEL(softmax_block, SoftmaxArguments)

// Kernels for the emulator's test: kernels whose threads wait for each other, and kernels with
// errors.
#include <cuda_fp16.h>

struct Span {
    float* data;
    unsigned length;
};

extern "C" __global__ void add_one(Span x) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < x.length) x.data[i] += 1.0f;
}

// Computes one sum for each block of 256 threads.
extern "C" __global__ void __launch_bounds__(256) block_sums(const float* x, float* sums) {
    __shared__ float partial[256];
    partial[threadIdx.x] = x[blockIdx.x * 256 + threadIdx.x];
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

// The same kernel without its barriers, which is wrong.
extern "C" __global__ void block_sums_without_barriers(const float* x, float* sums) {
    __shared__ float partial[256];
    partial[threadIdx.x] = x[blockIdx.x * 256 + threadIdx.x];
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

extern "C" __global__ void reverse(float* x) {
    extern __shared__ __align__(16) float kept[];
    kept[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = kept[blockDim.x - 1 - threadIdx.x];
}

// For blocks of 40 threads, whose second warp is not full.
extern "C" __global__ void warp_sums(const float* x, float* sums, unsigned* votes) {
    float sum = x[threadIdx.x];
    unsigned present = threadIdx.x < 32 ? 0xffffffff : 0xff;
    for (int bit = 16; bit > 0; bit /= 2) {
        float other = __shfl_xor_sync(present, sum, bit);
        if ((threadIdx.x % 32 ^ bit) < __popc(present)) sum += other;
    }
    unsigned vote = __ballot_sync(present, threadIdx.x % 3 == 0);
    sums[threadIdx.x] = sum;
    votes[threadIdx.x] = vote;
}

// The first seven lanes return before the others exchange values.
extern "C" __global__ void shift_down(float* x) {
    if (threadIdx.x < 7) return;
    x[threadIdx.x] = __shfl_down_sync(0xffffffff, x[threadIdx.x], 1);
}

extern "C" __global__ void count_values(const unsigned char* x, unsigned* counts, unsigned length) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < length; i += gridDim.x * blockDim.x)
        atomicAdd(&counts[x[i]], 1);
}

// On a device this never ends.
extern "C" __global__ void wait_at_two_places(float* x) {
    if (threadIdx.x == 0) __syncthreads();
    else x[threadIdx.x] = __shfl_sync(0xffffffff, x[threadIdx.x], 0);
}

extern "C" __global__ void write_behind(float* x, unsigned length) { x[length] = 1.0f; }

extern "C" __global__ void to_half(const float* x, __half* y) { y[threadIdx.x] = __float2half(x[threadIdx.x]); }

// Defines CUDA's language extensions so that g++ can compile a kernel for the CPU.
//
// `tests/cuda/build` includes this file before every .cu file. A thread of a block is an ordinary
// call of the kernel. The threads of a block run one after another on one fibre, as a plain loop,
// until one of them waits at a barrier or a warp collective. Then the next thread gets a fibre of
// its own (block.cpp). So a kernel without barriers costs no more than the loop.
//
// Blocks run on several host threads at once. Therefore `__shared__` is thread_local, and atomics
// are real atomics.
#pragma once

// Includes every header that a kernel may include, as host code. In the kernel's own includes the
// include guards then leave these headers empty, so `__CUDA_ARCH__` affects only the kernel's code.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

namespace emu {

// The position of the running thread in its grid, and the threads of its block that have not
// started.
struct ThreadContext {
  uint3 thread, block, block_size, grid;
  uint3 next;
  unsigned unstarted;
  char* dynamic_shared;
};

// With this TLS model, reading `threadIdx` is one instruction. thread_context.cpp states its cost.
extern __thread ThreadContext thread_context __attribute__((tls_model("initial-exec")));

inline bool next_thread() {
  if (thread_context.unstarted == 0) return false;
  thread_context.unstarted--;
  thread_context.thread = thread_context.next;
  if (++thread_context.next.x == thread_context.block_size.x) {
    thread_context.next.x = 0;
    if (++thread_context.next.y == thread_context.block_size.y) {
      thread_context.next.y = 0;
      thread_context.next.z++;
    }
  }
  return true;
}

inline unsigned thread_index() {
  const uint3 &t = thread_context.thread, &size = thread_context.block_size;
  return (t.z * size.y + t.y) * size.x + t.x;
}

// A kernel that cuLaunchKernel can run: `run` calls the kernel for all threads that have not
// started.
struct Kernel {
  const char* name;
  void (*run)(void** arguments);
  std::vector<size_t> argument_sizes;
};

void add_kernel(const char* file, const Kernel& kernel);

template <auto kernel>
struct Signature;

// Unpacks `void**` by the C++ signature of the kernel, as the driver does by its PTX signature.
template <class... A, void (*kernel)(A...)>
struct Signature<kernel> {
  template <size_t... I>
  static void call_all(void** arguments, std::index_sequence<I...>) {
    (void)arguments;
    while (next_thread()) kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
  }
  static void run(void** arguments) { call_all(arguments, std::index_sequence_for<A...>{}); }
  static std::vector<size_t> sizes() { return {sizeof(A)...}; }
};

template <auto kernel>
void add(const char* file, const char* name) {
  add_kernel(file, {name, Signature<kernel>::run, Signature<kernel>::sizes()});
}

// Waits until all threads of the block that have not returned wait here.
void block_barrier();

// The values that one lane gives to a warp collective and receives from it.
struct Exchange {
  uint64_t value;   // the lane's own value
  unsigned source;  // the lane whose value is wanted
  uint64_t result;  // the value of lane `source`
  unsigned votes;   // bit l is set if lane l took part with a value other than 0
};

// Waits until all lanes of `mask` that have not returned wait here, and then exchanges their
// values.
void warp_exchange(unsigned mask, Exchange& exchange);

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(thread_context.dynamic_shared);
}

}  // namespace emu

#define threadIdx (emu::thread_context.thread)
#define blockIdx (emu::thread_context.block)
#define blockDim (emu::thread_context.block_size)
#define gridDim (emu::thread_context.grid)
#define warpSize 32

// The build rewrites `extern __shared__ T name[]` to a call of `dynamic_shared`.
#undef __shared__
#define __shared__ static thread_local
#undef __constant__
#define __constant__ static
#define __syncthreads() emu::block_barrier()

// The emulator reads launch bounds from the PTX.
#undef __launch_bounds__
#define __launch_bounds__(...)

// The build looks for this attribute to find the kernels.
#undef __global__
#define __global__ __attribute__((__used__, __emu_kernel__))

#include "intrinsics.h"

#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
// Capability 7.5, for which the PTX is compiled.
#define __CUDA_ARCH__ 750

#ifdef EMU_KERNELS
// Functions of a kernel file are hidden, since two files may have functions of the same name.
#pragma GCC visibility push(hidden)
#endif

// The interface of the emulated driver for the emulated cuBLAS, cuDNN and cuRAND.
#pragma once

#include <cuda.h>

#include <functional>
#include <string>

namespace emu {

// Enqueues work on a stream of the calling thread's device. `kind` is the counter that is
// increased, and the kind of planned faults.
CUresult submit(CUstream stream, const char* kind, const std::string& name,
                std::function<void()> work);

// Counts a call of this kind on this device. Returns the error planned for it, or CUDA_SUCCESS.
CUresult planned_fault(const std::string& kind, int device);

// Returns the bytes from `address` to the end of its allocation, or 0 if it is not device memory.
size_t bytes_at(CUdeviceptr address);

}  // namespace emu

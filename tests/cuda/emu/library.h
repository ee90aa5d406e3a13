// What the emulated cuBLAS, cuDNN and cuRAND need of the emulated driver.
#pragma once

#include <cuda.h>

#include <functional>
#include <string>

namespace emu {

// Puts work into a stream of the calling thread's device. `kind` is the counter it adds to and the
// name planned faults know it by.
CUresult submit(CUstream stream, const char* kind, const std::string& name,
                std::function<void()> work);

// The error that a call of this kind on this device is to meet, or CUDA_SUCCESS. Counts the call.
CUresult planned_fault(const std::string& kind, int device);

// Bytes from `address` to the end of its allocation; 0 if it is not memory of a device.
size_t bytes_at(CUdeviceptr address);

}  // namespace emu

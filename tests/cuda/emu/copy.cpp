// Copies between the host and a device, and fills memory.
#include <algorithm>
#include <cstring>

#include "driver.h"

namespace emu {
namespace {

// Runs a copy. Its memory may have been freed since the copy was enqueued.
CUresult copy(void* to, const void* from, size_t bytes, CUdeviceptr a, CUdeviceptr b) {
  for (CUdeviceptr address : {a, b})
    if (address != 0 && bytes_at(address) < bytes) return CUDA_ERROR_ILLEGAL_ADDRESS;
  memcpy(to, from, bytes);
  return CUDA_SUCCESS;
}

struct Copy {
  const char* name;
  const char* counter;
  void* to;
  const void* from;
  size_t bytes;
  // The addresses that are on a device; 0 for those on the host.
  CUdeviceptr device_to, device_from;
};

CUresult begin_copy(const Copy& c, CUstream handle, Device*& device, CUresult* deferred_error,
                    std::shared_ptr<Stream>& stream) {
  if (CUresult error = begin_call(c.name, device, deferred_error)) return error;
  stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  for (CUdeviceptr address : {c.device_to, c.device_from})
    if (address != 0 && bytes_at(address) < c.bytes) return CUDA_ERROR_INVALID_VALUE;
  if ((c.device_to == 0 && c.to == nullptr) || (c.device_from == 0 && c.from == nullptr))
    return CUDA_ERROR_INVALID_VALUE;
  count(c.counter, int64_t(c.bytes));
  return CUDA_SUCCESS;
}

// A copy accesses page-locked memory when it runs, so the host must not touch that memory before.
// Other host memory is read during the call; a copy to other host memory waits until it has run.
CUresult copy_async(Copy c, CUstream handle) {
  if (c.bytes == 0) return CUDA_SUCCESS;
  Device* device;
  CUresult deferred_error = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream;
  if (CUresult error = begin_copy(c, handle, device, &deferred_error, stream)) return error;
  std::shared_ptr<std::vector<char>> staged;
  bool captured = stream->capture != nullptr;
  if (c.device_from == 0 && !captured && !is_pinned(c.from, c.bytes)) {
    auto* bytes = static_cast<const char*>(c.from);
    staged = std::make_shared<std::vector<char>>(bytes, bytes + c.bytes);
    c.from = staged->data();
  }
  CUresult result = enqueue(stream, {std::string(c.name) + " " + std::to_string(c.bytes), [=] {
                                       (void)staged;
                                       if (deferred_error != CUDA_SUCCESS) return deferred_error;
                                       return copy(c.to, c.from, c.bytes, c.device_to, c.device_from);
                                     }});
  if (result != CUDA_SUCCESS) return result;
  if (c.device_to == 0 && !captured && !is_pinned(c.to, c.bytes)) return cuStreamSynchronize(handle);
  return CUDA_SUCCESS;
}

CUresult copy_now(const Copy& c) {
  if (CUresult error = refuse_in_capture()) return error;
  return copy_async(c, nullptr);
}

Copy host_to_device(CUdeviceptr to, const void* from, size_t bytes) {
  return {"h2d", "h2d_bytes", reinterpret_cast<void*>(to), from, bytes, to, 0};
}
Copy device_to_host(void* to, CUdeviceptr from, size_t bytes) {
  return {"d2h", "d2h_bytes", to, reinterpret_cast<const void*>(from), bytes, 0, from};
}
Copy device_to_device(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return {"d2d", "d2d_bytes", reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from),
          bytes,  to,         from};
}

template <class T>
CUresult fill(CUdeviceptr to, T value, size_t n, CUstream handle) {
  if (n == 0) return CUDA_SUCCESS;
  Device* device;
  CUresult deferred_error = CUDA_SUCCESS;
  if (CUresult error = begin_call("memset", device, &deferred_error)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (to % sizeof(T) != 0 || bytes_at(to) < n * sizeof(T)) return CUDA_ERROR_INVALID_VALUE;
  return enqueue(stream, {"memset " + std::to_string(n * sizeof(T)), [=] {
                            if (deferred_error != CUDA_SUCCESS) return deferred_error;
                            if (bytes_at(to) < n * sizeof(T)) return CUDA_ERROR_ILLEGAL_ADDRESS;
                            std::fill_n(reinterpret_cast<T*>(to), n, value);
                            return CUDA_SUCCESS;
                          }});
}

}  // namespace
}  // namespace emu

using namespace emu;

EMU_API CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return copy_async(host_to_device(to, from, bytes), stream);
}
EMU_API CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return copy_async(device_to_host(to, from, bytes), stream);
}
EMU_API CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return copy_async(device_to_device(to, from, bytes), stream);
}
EMU_API CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext,
                                   size_t bytes, CUstream stream) {
  return copy_async(device_to_device(to, from, bytes), stream);
}
EMU_API CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t bytes) {
  return copy_now(host_to_device(to, from, bytes));
}
EMU_API CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, size_t bytes) {
  return copy_now(device_to_host(to, from, bytes));
}
EMU_API CUresult cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return copy_now(device_to_device(to, from, bytes));
}

EMU_API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n, CUstream stream) {
  return fill(to, value, n, stream);
}
EMU_API CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t n, CUstream stream) {
  return fill(to, value, n, stream);
}
EMU_API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t n, CUstream stream) {
  return fill(to, value, n, stream);
}
EMU_API CUresult cuMemsetD8(CUdeviceptr to, unsigned char value, size_t n) {
  CUresult error = refuse_in_capture();
  return error != CUDA_SUCCESS ? error : fill(to, value, n, nullptr);
}
EMU_API CUresult cuMemsetD32(CUdeviceptr to, unsigned value, size_t n) {
  CUresult error = refuse_in_capture();
  return error != CUDA_SUCCESS ? error : fill(to, value, n, nullptr);
}

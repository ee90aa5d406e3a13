// An emulated CUDA driver: `libcuda.so.1` whose device is the CPU.
//
// Kernels are the same .cu files, compiled by g++ (emu/cuda.h). The driver behaves as a device does
// wherever a program can notice it: memory has bounds, streams keep an order, captures refuse what
// a capture cannot hold, and broken devices stay broken. A function that is not emulated says so on
// stderr and returns CUDA_ERROR_NOT_SUPPORTED. No call pretends to have worked.
//
//   tests/cuda/build DIR && LD_LIBRARY_PATH=DIR program
//
// Settings are EMU_NAME=value in the environment, or set by `int emu_set(name, value)`. emu_set
// first synchronizes all streams, and returns 0 if name and value are valid. Defaults are in
// parentheses. streams     `now` (the default): an operation runs when it is enqueued.
//               `lazy`: an operation runs only when a call waits for it, so a forgotten wait shows
//               as old data or NaN. Each query of an event or a stream runs one operation.
//               `threads`: each stream runs on its own thread.
//   devices     number of devices (1), at most 8. With 0, cuInit returns CUDA_ERROR_NO_DEVICE.
//   capability  compute capability that the devices report, without its point (86). Nothing else
//               depends on it.
//   cuda_version  CUDA version that the driver reports, such as 12040 (the version of the headers).
//   memory_mib  MiB of memory of each device (4096). Larger allocations return
//               CUDA_ERROR_OUT_OF_MEMORY.
// fault       KIND:N:CODE[:TIMES][@DEVICE], several separated by commas. An empty value removes all
//               faults. The Nth call of that kind from now on gets the error CODE, once or TIMES
//               times; `*` means for ever.
//               `launch:37:700` is an illegal address in the 37th launch. It breaks the device,
//               which then answers 700 to all calls until cuDevicePrimaryCtxReset. In the modes
//               `lazy` and `threads` the error is reported when the kernel runs, as on a device.
//               `any:1:214:*@1` is an ECC error from which device 1 does not recover.
//               `alloc:5:2` is one failed allocation.
//               With `hang` as CODE the operation never ends. Its stream stops there, and all calls
//               that wait for the stream block until the next emu_set, which resumes all streams.
//               Kinds are: launch graph gemm conv h2d d2h d2d memset alloc host_alloc sync query
//               record wait event stream capture instantiate module context host info any, and
//               algorithm: cuDNN is asked for an algorithm and supports none, whatever CODE is.
//   check       1: looks for writes outside of allocations after every operation, not only when
//               memory is freed, and names the kernel.
// complaints  `count` (the default), or `abort`: the process ends at the first complaint, so that a
//               test cannot pass if it misuses the driver or calls what is not emulated.
// trace       file for one line per step: number, what (enqueue, capture, run, wait, alloc), stream
//               as d<device>.s<number>, details.
//
// Counters, which `int64_t emu_counter(name)` returns:
//   launches graph_launches kernels gemm conv records h2d_bytes d2h_bytes d2d_bytes
//   live_allocations live_bytes peak_bytes live_host_allocations live_streams live_events
//   overruns (writes outside of allocations) late_writes (writes to freed memory)
//   complaints (messages on stderr)
//
// The emulator differs from a device in these points:
// - Work on the null stream runs at once in every mode.
// - The operations of a graph run in the order in which they were captured.
// - A device pointer is a host address, so host code that reads it is not stopped.
// - A module must be PTX text. Its kernels are looked up by name.
// - The memory that a pool keeps is never too fragmented for an allocation.
#include <array>
#include <cstdio>
#include <cstring>

#include "emu/driver.h"

namespace emu {
namespace {

using Lock = std::unique_lock<std::mutex>;

constexpr int devices_max = 8;
bool initialised = false;
thread_local Device* current = nullptr;

std::array<Device, devices_max>& all_devices() {
  static auto& devices = *new std::array<Device, devices_max>;
  static bool is_initialised = [] {
    for (int i = 0; i < devices_max; i++) {
      devices[i].ordinal = i;
      devices[i].null_stream = new_stream(&devices[i], "d" + std::to_string(i) + ".s0", true);
    }
    return true;
  }();
  (void)is_initialised;
  return devices;
}

CUcontext context_of(Device* device) { return reinterpret_cast<CUcontext>(device); }

Device* device_of(CUcontext context) {
  for (Device& device : all_devices())
    if (context_of(&device) == context) return &device;
  return nullptr;
}

// Ends the context of a device and all it holds. Operations that have not started never run, and
// calls that wait for them return.
void reset_device(Device* device) {
  {
    Lock lock(state_mutex);
    device->sticky_error = CUDA_ERROR_CONTEXT_IS_DESTROYED;
  }
  synchronize_device(device);
  destroy_streams(device);
  destroy_modules(device);
  release_all_memory(device);
  Lock lock(state_mutex);
  device->sticky_error = CUDA_SUCCESS;
}

// --- Attributes of a device ---

int device_attribute(CUdevice_attribute which) {
  switch (which) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: return 64;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return 0x7fffffff;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return shared_default;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: return shared_max;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: return 100 << 10;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: return 65536;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY: return 65536;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 2;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 1536;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return settings().capability / 10;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return settings().capability % 10;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return 1000000;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: return 1;
    default: return 0;
  }
}

struct ErrorText {
  CUresult code;
  const char *name, *text;
};
#define EMU_ERROR(name, text) {name, #name, text}
const ErrorText error_texts[] = {
    EMU_ERROR(CUDA_SUCCESS, "no error"),
    EMU_ERROR(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    EMU_ERROR(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    EMU_ERROR(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    EMU_ERROR(CUDA_ERROR_DEVICE_UNAVAILABLE, "CUDA-capable device(s) is/are busy or unavailable"),
    EMU_ERROR(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    EMU_ERROR(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    EMU_ERROR(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    EMU_ERROR(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    EMU_ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution"),
    EMU_ERROR(CUDA_ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error encountered"),
    EMU_ERROR(CUDA_ERROR_INVALID_PTX, "a PTX JIT compilation failed"),
    EMU_ERROR(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    EMU_ERROR(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
    EMU_ERROR(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    EMU_ERROR(CUDA_ERROR_NOT_READY, "device not ready"),
    EMU_ERROR(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    EMU_ERROR(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
    EMU_ERROR(CUDA_ERROR_LAUNCH_TIMEOUT, "the launch timed out and was terminated"),
    EMU_ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
    EMU_ERROR(CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned address"),
    EMU_ERROR(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    EMU_ERROR(CUDA_ERROR_NOT_SUPPORTED, "operation not supported"),
    EMU_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"),
    EMU_ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"),
    EMU_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "the capture was not initiated in this stream"),
    EMU_ERROR(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "dependency created on uncaptured work in another stream"),
    EMU_ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "operation would make the legacy stream wait for a capture"),
    EMU_ERROR(CUDA_ERROR_CAPTURED_EVENT, "operation not permitted on an event last recorded in a capturing stream"),
    EMU_ERROR(CUDA_ERROR_UNKNOWN, "unknown error"),
};
#undef EMU_ERROR

}  // namespace

Device* current_device() { return current; }

Device* device_at(int ordinal) {
  bool exists = initialised && ordinal >= 0 && ordinal < settings().devices;
  return exists ? &all_devices()[ordinal] : nullptr;
}

CUresult begin_call(const char* kind, Device*& device, CUresult* deferred_error) {
  if (!initialised) return CUDA_ERROR_NOT_INITIALIZED;
  device = current;
  if (device == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  Lock lock(state_mutex);
  if (device->sticky_error != CUDA_SUCCESS) return device->sticky_error;
  CUresult fault = planned_fault(kind, device->ordinal);
  if (!breaks_device(fault)) return fault;
  if (deferred_error != nullptr) {
    *deferred_error = fault;
    return CUDA_SUCCESS;
  }
  device->sticky_error = fault;
  return fault;
}

}  // namespace emu

using namespace emu;

EMU_API int64_t emu_counter(const char* name) { return emu::counter(name); }

EMU_API int emu_set(const char* name, const char* value) {
  resume_streams();
  synchronize_all();
  return emu::set(name, value) ? 0 : 1;
}

// Called by the stubs of all functions that are not emulated, which the build writes. Complains and
// returns the error code.
EMU_API int emu_missing(const char* name, int code) {
  complain_once(std::string(name) + " is not emulated");
  return code;
}

EMU_API CUresult cuGetErrorName(CUresult error, const char** name) {
  for (const ErrorText& entry : error_texts)
    if (entry.code == error) return *name = entry.name, CUDA_SUCCESS;
  *name = "CUDA_ERROR";
  return CUDA_SUCCESS;
}

EMU_API CUresult cuGetErrorString(CUresult error, const char** text) {
  for (const ErrorText& entry : error_texts)
    if (entry.code == error) return *text = entry.text, CUDA_SUCCESS;
  *text = "an error without a text";
  return CUDA_SUCCESS;
}

// --- Devices ---

EMU_API CUresult cuInit(unsigned) {
  if (settings().devices == 0) return CUDA_ERROR_NO_DEVICE;
  initialised = true;
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDriverGetVersion(int* version) {
  *version = settings().cuda_version;
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDeviceGetCount(int* count) {
  if (!initialised) return CUDA_ERROR_NOT_INITIALIZED;
  *count = settings().devices;
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  if (!initialised) return CUDA_ERROR_NOT_INITIALIZED;
  if (device_at(ordinal) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  if (device_at(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  snprintf(name, size_t(length), "Emulated device %d", device);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  if (device_at(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  memset(uuid, device, sizeof *uuid);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice device) {
  if (device_at(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *value = device_attribute(which);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDeviceTotalMem(size_t* bytes, CUdevice device) {
  if (device_at(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = settings().memory_bytes;
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDeviceCanAccessPeer(int* can, CUdevice, CUdevice) {
  *can = 0;
  return CUDA_SUCCESS;
}

// --- Contexts: the primary one of each device ---

EMU_API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice ordinal) {
  Device* device = device_at(ordinal);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  Lock lock(state_mutex);
  CUresult fault = planned_fault("context", ordinal);
  if (fault != CUDA_SUCCESS) return fault;
  device->retain_count++;
  *context = context_of(device);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDevicePrimaryCtxRelease(CUdevice ordinal) {
  Device* device = device_at(ordinal);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  {
    Lock lock(state_mutex);
    if (device->retain_count == 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (--device->retain_count > 0) return CUDA_SUCCESS;
  }
  reset_device(device);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDevicePrimaryCtxReset(CUdevice ordinal) {
  Device* device = device_at(ordinal);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  reset_device(device);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDevicePrimaryCtxGetState(CUdevice ordinal, unsigned* flags, int* active) {
  Device* device = device_at(ordinal);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  Lock lock(state_mutex);
  *flags = 0;
  *active = device->retain_count > 0;
  return CUDA_SUCCESS;
}

EMU_API CUresult cuDevicePrimaryCtxSetFlags(CUdevice ordinal, unsigned) {
  return device_at(ordinal) == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

EMU_API CUresult cuCtxSetCurrent(CUcontext context) {
  Device* device = context == nullptr ? nullptr : device_of(context);
  if (context != nullptr && device == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  Lock lock(state_mutex);
  if (device != nullptr && device->retain_count == 0) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  current = device;
  return CUDA_SUCCESS;
}

EMU_API CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = current == nullptr ? nullptr : context_of(current);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuCtxGetDevice(CUdevice* device) {
  if (current == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *device = current->ordinal;
  return CUDA_SUCCESS;
}

// The flags say how the host waits, which makes no difference here.
EMU_API CUresult cuCtxSetFlags(unsigned) {
  return current == nullptr ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

EMU_API CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  *least = *greatest = 0;
  return CUDA_SUCCESS;
}

// Memory of the device, and page-locked memory of the host.
//
// Device memory is host memory with a guard on either side. It holds NaNs until it is written, and
// again after it is freed. Freed memory is kept in quarantine for a while, to notice later
// accesses.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "driver.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emu {
namespace {

// As large as the alignment that cuMemAlloc promises, so that the memory behind a guard is aligned.
constexpr size_t guard_bytes = 512;
constexpr unsigned char poison = 0xff;
constexpr size_t quarantine_bytes_max = size_t(256) << 20;

struct Allocation {
  Device* device;
  size_t bytes;
  char* base;
  bool pooled;
  bool freed = false;

  char* data() const { return base + guard_bytes; }
  size_t total_bytes() const { return guard_bytes + (bytes + 511) / 512 * 512 + guard_bytes; }
};

std::map<CUdeviceptr, Allocation>& allocations = *new std::map<CUdeviceptr, Allocation>;
std::deque<CUdeviceptr>& quarantine = *new std::deque<CUdeviceptr>;
size_t quarantined_bytes = 0;

struct Pinned {
  size_t bytes;
  bool is_allocation;
};
std::map<uintptr_t, Pinned>& pinned = *new std::map<uintptr_t, Pinned>;

using Lock = std::unique_lock<std::mutex>;

#if defined(__SANITIZE_ADDRESS__)
void write_guards(const Allocation& a) {
  ASAN_POISON_MEMORY_REGION(a.base, guard_bytes);
  ASAN_POISON_MEMORY_REGION(a.data() + a.bytes, a.total_bytes() - guard_bytes - a.bytes);
}
void remove_guards(const Allocation& a) { ASAN_UNPOISON_MEMORY_REGION(a.base, a.total_bytes()); }
void poison_freed(const Allocation& a) { ASAN_POISON_MEMORY_REGION(a.base, a.total_bytes()); }
// The sanitizer stops the program at the access itself.
bool guards_are_intact(const Allocation&) { return true; }
bool is_unwritten_since_free(const Allocation&) { return true; }
#else
constexpr unsigned char guard_value = 0xa5;

bool all_are(const char* from, const char* to, unsigned char value) {
  for (; from < to; from++)
    if (static_cast<unsigned char>(*from) != value) return false;
  return true;
}

void write_guards(const Allocation& a) {
  memset(a.base, guard_value, guard_bytes);
  memset(a.data() + a.bytes, guard_value, a.total_bytes() - guard_bytes - a.bytes);
}
void remove_guards(const Allocation&) {}
void poison_freed(const Allocation& a) { memset(a.data(), poison, a.bytes); }
bool guards_are_intact(const Allocation& a) {
  return all_are(a.base, a.data(), guard_value) &&
         all_are(a.data() + a.bytes, a.base + a.total_bytes(), guard_value);
}
bool is_unwritten_since_free(const Allocation& a) {
  return all_are(a.data(), a.data() + a.bytes, poison);
}
#endif

const Allocation* find(CUdeviceptr address) {
  auto next = allocations.upper_bound(address);
  if (next == allocations.begin()) return nullptr;
  const auto& [start, allocation] = *std::prev(next);
  return address - start < allocation.bytes ? &allocation : nullptr;
}

void report_overrun(const Allocation& a, const std::string& suspect) {
  count("overruns");
  complain_once("something was written outside of an allocation of " + std::to_string(a.bytes) +
                " bytes" + (suspect.empty() ? "" : ", and " + suspect + " ran last"));
}

void free_oldest() {
  auto found = allocations.find(quarantine.front());
  quarantine.pop_front();
  const Allocation& a = found->second;
  quarantined_bytes -= a.bytes;
  if (!is_unwritten_since_free(a)) {
    count("late_writes");
    complain_once("memory was written after it had been freed");
  }
  remove_guards(a);
  free(a.base);
  allocations.erase(found);
}

// Returns the bytes that can still be allocated. Freed bytes that the pool keeps can be allocated
// only from the pool.
size_t free_bytes_locked(const Device& device, bool pooled) {
  size_t kept = pooled ? 0 : device.pool_reserved - device.pool_used;
  size_t total = settings().memory_bytes, taken = device.used_bytes + kept;
  return total - std::min(total, taken);
}

bool fits(Device* device, size_t bytes, bool pooled) {
  Lock lock(state_mutex);
  return bytes <= free_bytes_locked(*device, pooled);
}

void trim_pool(Device& device, uint64_t threshold) {
  size_t keep = std::max<uint64_t>(device.pool_used, threshold);
  device.pool_reserved = std::min(device.pool_reserved, keep);
}

CUresult allocate(Device* device, size_t bytes, bool pooled, CUdeviceptr* address) {
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  // A stream may still hold an operation that frees memory.
  if (!fits(device, bytes, pooled)) synchronize_device(device);
  if (!fits(device, bytes, pooled)) return CUDA_ERROR_OUT_OF_MEMORY;
  Allocation a{device, bytes, nullptr, pooled};
  a.base = static_cast<char*>(aligned_alloc(512, a.total_bytes()));
  if (a.base == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  memset(a.data(), poison, bytes);
  write_guards(a);
  *address = CUdeviceptr(a.data());
  Lock lock(state_mutex);
  allocations.emplace(*address, a);
  device->used_bytes += bytes;
  if (pooled) device->pool_used += bytes;
  device->pool_reserved = std::max(device->pool_reserved, device->pool_used);
  count("live_allocations");
  count("live_bytes", int64_t(bytes));
  raise_to("peak_bytes", int64_t(device->used_bytes));
  return CUDA_SUCCESS;
}

CUresult release_locked(CUdeviceptr address) {
  auto found = allocations.find(address);
  if (found == allocations.end() || found->second.freed) return CUDA_ERROR_INVALID_VALUE;
  Allocation& a = found->second;
  if (!guards_are_intact(a)) report_overrun(a, "");
  a.freed = true;
  a.device->used_bytes -= a.bytes;
  if (a.pooled) a.device->pool_used -= a.bytes;
  if (a.pooled) trim_pool(*a.device, a.device->pool_threshold);
  count("live_allocations", -1);
  count("live_bytes", -int64_t(a.bytes));
  poison_freed(a);
  quarantine.push_back(address);
  quarantined_bytes += a.bytes;
  while (quarantined_bytes > quarantine_bytes_max) free_oldest();
  return CUDA_SUCCESS;
}

}  // namespace

size_t bytes_at(CUdeviceptr address) {
  Lock lock(state_mutex);
  const Allocation* a = find(address);
  return a == nullptr || a->freed ? 0 : CUdeviceptr(a->data()) + a->bytes - address;
}

bool is_freed(CUdeviceptr address) {
  Lock lock(state_mutex);
  const Allocation* a = find(address);
  return a != nullptr && a->freed;
}

bool is_pinned(const void* address, size_t bytes) {
  Lock lock(state_mutex);
  auto next = pinned.upper_bound(uintptr_t(address));
  if (next == pinned.begin()) return false;
  const auto& [start, range] = *std::prev(next);
  return uintptr_t(address) + bytes <= start + range.bytes;
}

CUresult release_memory(CUdeviceptr address) {
  Lock lock(state_mutex);
  return release_locked(address);
}

void release_all_memory(Device* device) {
  Lock lock(state_mutex);
  std::vector<CUdeviceptr> addresses;
  for (auto& [address, a] : allocations)
    if (a.device == device && !a.freed) addresses.push_back(address);
  for (CUdeviceptr address : addresses) release_locked(address);
  device->pool_reserved = 0;
  device->pool_threshold = 0;
}

CUresult check_guards(const std::string& suspect) {
  Lock lock(state_mutex);
  for (auto& [address, a] : allocations) {
    if (a.freed || guards_are_intact(a)) continue;
    report_overrun(a, suspect);
    write_guards(a);
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  return CUDA_SUCCESS;
}

}  // namespace emu

using namespace emu;

// --- Device memory ---

EMU_API CUresult cuMemAlloc(CUdeviceptr* address, size_t bytes) {
  Device* device;
  if (CUresult error = begin_call("alloc", device)) return error;
  if (CUresult error = refuse_in_capture()) return error;
  return allocate(device, bytes, false, address);
}

EMU_API CUresult cuMemFree(CUdeviceptr address) {
  Device* device = current_device();
  if (device == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (CUresult error = refuse_in_capture()) return error;
  // As on a device, the call waits for all operations that may still use the memory.
  synchronize_device(device);
  if (CUresult error = release_memory(address)) return error;
  return device->sticky_error;
}

// Inside a capture the memory belongs to the graph, at the same address in every run. Otherwise it
// belongs to the pool.
EMU_API CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream handle) {
  Device* device;
  if (CUresult error = begin_call("alloc", device)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  bool pooled = stream->capture == nullptr;
  if (CUresult error = allocate(device, bytes, pooled, address)) return error;
  trace("alloc", stream->name, std::to_string(bytes));
  Lock lock(state_mutex);
  if (stream->capture != nullptr) stream->capture->allocations.push_back(*address);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuMemAllocFromPoolAsync(CUdeviceptr* address, size_t bytes, CUmemoryPool,
                                         CUstream handle) {
  return cuMemAllocAsync(address, bytes, handle);
}

EMU_API CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  Device* device = current_device();
  if (device == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (bytes_at(address) == 0) return CUDA_ERROR_INVALID_VALUE;
  {
    Lock lock(state_mutex);
    if (stream->capture != nullptr) {
      const auto& owned = stream->capture->allocations;
      bool of_graph = std::find(owned.begin(), owned.end(), address) != owned.end();
      return of_graph ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
  }
  Operation op{"free", [=] { return release_memory(address); }};
  op.runs_on_broken_device = true;
  return enqueue(stream, op);
}

EMU_API CUresult cuMemGetInfo(size_t* free, size_t* total) {
  Device* device;
  if (CUresult error = begin_call("info", device)) return error;
  Lock lock(state_mutex);
  *total = settings().memory_bytes;
  *free = free_bytes_locked(*device, false);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuMemGetAddressRange(CUdeviceptr* base, size_t* bytes, CUdeviceptr address) {
  Lock lock(state_mutex);
  const Allocation* a = find(address);
  if (a == nullptr || a->freed) return CUDA_ERROR_NOT_FOUND;
  if (base != nullptr) *base = CUdeviceptr(a->data());
  if (bytes != nullptr) *bytes = a->bytes;
  return CUDA_SUCCESS;
}

// --- Page-locked memory ---

EMU_API CUresult cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  Device* device;
  if (CUresult error = begin_call("host_alloc", device)) return error;
  if (CUresult error = refuse_in_capture()) return error;
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (*address == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  memset(*address, poison, bytes);
  count("live_host_allocations");
  Lock lock(state_mutex);
  pinned[uintptr_t(*address)] = {bytes, true};
  return CUDA_SUCCESS;
}

EMU_API CUresult cuMemAllocHost(void** address, size_t bytes) {
  return cuMemHostAlloc(address, bytes, 0);
}

EMU_API CUresult cuMemHostRegister(void* address, size_t bytes, unsigned) {
  Device* device;
  if (CUresult error = begin_call("host_alloc", device)) return error;
  Lock lock(state_mutex);
  pinned[uintptr_t(address)] = {bytes, false};
  return CUDA_SUCCESS;
}

static CUresult unpin(void* address, bool is_allocation) {
  Device* device = current_device();
  if (device == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (CUresult error = refuse_in_capture()) return error;
  synchronize_device(device);
  Lock lock(state_mutex);
  auto found = pinned.find(uintptr_t(address));
  if (found == pinned.end() || found->second.is_allocation != is_allocation)
    return CUDA_ERROR_INVALID_VALUE;
  pinned.erase(found);
  if (is_allocation) free(address);
  if (is_allocation) count("live_host_allocations", -1);
  return device->sticky_error;
}

EMU_API CUresult cuMemFreeHost(void* address) { return unpin(address, true); }

EMU_API CUresult cuMemHostUnregister(void* address) { return unpin(address, false); }

// --- Pools ---

static CUmemoryPool pool_of(int ordinal) { return reinterpret_cast<CUmemoryPool>(0x100l + ordinal); }

static Device* device_of(CUmemoryPool pool) {
  return device_at(int(reinterpret_cast<long>(pool) - 0x100));
}

EMU_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
  if (device_at(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *pool = pool_of(device);
  return CUDA_SUCCESS;
}
EMU_API CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) {
  return cuDeviceGetDefaultMemPool(pool, device);
}

EMU_API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void* value) {
  Device* device = device_of(pool);
  if (device == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (attribute != CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) return CUDA_ERROR_NOT_SUPPORTED;
  Lock lock(state_mutex);
  device->pool_threshold = *static_cast<uint64_t*>(value);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void* value) {
  Device* device = device_of(pool);
  if (device == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  Lock lock(state_mutex);
  uint64_t& number = *static_cast<uint64_t*>(value);
  switch (attribute) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: number = device->pool_threshold; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: number = device->pool_reserved; break;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: number = device->pool_used; break;
    default: return CUDA_ERROR_NOT_SUPPORTED;
  }
  return CUDA_SUCCESS;
}

EMU_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t bytes) {
  Device* device = device_of(pool);
  if (device == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  Lock lock(state_mutex);
  trim_pool(*device, bytes);
  return CUDA_SUCCESS;
}

// Declarations that the parts of the emulated driver share: devices, memory, streams, events,
// graphs.
#pragma once

#include <cuda.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "settings.h"

#define EMU_API extern "C" __attribute__((visibility("default")))

namespace emu {

// One operation of a stream. It must copy everything that the host could change before the
// operation runs, except what a real device would also read only then.
struct Operation {
  std::string name;
  std::function<CUresult()> run;
  // True for bookkeeping, which must run even when the device is broken, so that waiting calls
  // return.
  bool runs_on_broken_device = false;
  // The operation waits for an event of another stream.
  bool waits_for_event = false;
  // The number of times that streams had been resumed when the operation was enqueued.
  int resumes_before = 0;
};

struct Stream;
struct Device;

// One recording of an event. A wait for an event waits for the recording that is the last one at
// the time of the call.
struct EventRecord {
  std::shared_ptr<Stream> stream;
  std::string event;
  bool done = false;
  bool captured = false;
  std::chrono::steady_clock::time_point time;
};

struct Event {
  Device* device;
  std::string name;
  bool has_time;
  std::shared_ptr<EventRecord> last_record;
};

struct Capture {
  CUstreamCaptureMode mode;
  std::thread::id thread;
  Stream* origin;
  std::vector<Operation> operations;
  std::vector<CUdeviceptr> allocations;
  bool invalid = false;
};

struct Stream {
  Device* device;
  std::string name;
  bool blocking;  // the null stream and this stream wait for each other
  std::deque<Operation> queue;
  bool running = false;  // an operation has left the queue and runs
  bool hangs = false;    // the operation that runs never ends
  bool closed = false;
  std::shared_ptr<Capture> capture;
  std::thread thread;  // in the mode `threads`
};

// A captured graph. Its executable form shares the same object.
struct Graph {
  Device* device;
  std::vector<Operation> operations;
  std::vector<CUdeviceptr> allocations;
  ~Graph();
};

struct Device {
  int ordinal;
  int retain_count = 0;
  CUresult sticky_error = CUDA_SUCCESS;
  size_t used_bytes = 0;
  // Bytes of the memory pool: the part of `used_bytes` that is the pool's, and the same with the
  // freed bytes that the pool keeps.
  size_t pool_used = 0, pool_reserved = 0;
  uint64_t pool_threshold = 0;
  std::shared_ptr<Stream> null_stream;
};

// Guards all structures of this file. Never held while an operation runs.
extern std::mutex& state_mutex;
// Notified when an operation has finished, or when streams are resumed or closed.
extern std::condition_variable& progress;

// A table of objects by handle. A handle is never used twice, so a stale handle is always noticed.
uintptr_t next_handle();

template <class T>
struct Handles {
  std::unordered_map<uintptr_t, std::shared_ptr<T>> all;

  template <class H>
  H insert(std::shared_ptr<T> object) {
    uintptr_t handle = next_handle();
    all[handle] = std::move(object);
    return reinterpret_cast<H>(handle);
  }
  template <class H>
  std::shared_ptr<T> get(H handle) const {
    auto found = all.find(reinterpret_cast<uintptr_t>(handle));
    return found == all.end() ? nullptr : found->second;
  }
  template <class H>
  std::shared_ptr<T> remove(H handle) {
    auto object = get(handle);
    if (object != nullptr) all.erase(reinterpret_cast<uintptr_t>(handle));
    return object;
  }
  // Removes all objects of one device and returns them.
  std::vector<std::shared_ptr<T>> remove_all_of(Device* device) {
    std::vector<std::shared_ptr<T>> removed;
    for (auto i = all.begin(); i != all.end();) {
      bool matches = i->second->device == device;
      if (matches) removed.push_back(std::move(i->second));
      i = matches ? all.erase(i) : std::next(i);
    }
    return removed;
  }
};

extern Handles<Stream>& streams;

// --- driver.cpp ---

// Sets `device` to the device of the calling thread's context. Returns an error if no context is
// current, the device is broken, or a fault is planned for calls of this `kind`. A fault that
// breaks the device is stored in `deferred_error` if that is given: the operation reports it when
// it runs.
CUresult begin_call(const char* kind, Device*& device, CUresult* deferred_error = nullptr);
Device* current_device();
Device* device_at(int ordinal);

// --- module.cpp ---

// Bytes of dynamic shared memory of a block: by default, and at most after cuFuncSetAttribute. The
// values are those of capability 8.6.
constexpr int shared_default = 48 << 10, shared_max = 99 << 10;
void destroy_modules(Device* device);

// --- memory.cpp ---

// Returns the bytes from `address` to the end of its allocation, or 0 if no live allocation of a
// device contains the address.
size_t bytes_at(CUdeviceptr address);
bool is_freed(CUdeviceptr address);
bool is_pinned(const void* address, size_t bytes);
CUresult release_memory(CUdeviceptr address);
void release_all_memory(Device* device);
// Complains and returns an error if memory outside of an allocation was written. `suspect` is the
// name of the operation that ran last.
CUresult check_guards(const std::string& suspect);

// --- stream.cpp ---

std::shared_ptr<Stream> new_stream(Device* device, const std::string& name, bool blocking);
// Returns the stream of a handle, or null if it is not a stream of this device.
std::shared_ptr<Stream> find_stream(Device* device, CUstream handle);
// Appends an operation to the stream, or to the capture of the stream.
CUresult enqueue(const std::shared_ptr<Stream>& stream, Operation op);
// Waits until all operations of the stream have run.
void synchronize(const std::shared_ptr<Stream>& stream);
void synchronize_device(Device* device);
void synchronize_all();
// Resumes streams that hang, behind the operation in which they hang.
void resume_streams();
void destroy_streams(Device* device);

// Runs one operation now, for the stream of that name.
CUresult run_operation(const std::string& where, const Operation& op);
// Returns the error that broke the device, or CUDA_SUCCESS.
CUresult sticky_error(Device* device);
bool is_done(const EventRecord& event_record);
// Runs the operations before the recording, or waits for them. Returns false if their stream hangs.
bool run_until(const EventRecord& event_record);
// Waits for the recording, even if its stream hangs.
void wait_for_record(const EventRecord& event_record);
// In the mode `lazy`, runs one operation of the stream: a program that queries again and again must
// come to an end, but not at its first query.
void make_progress(Stream& stream);

// --- event.cpp ---

void destroy_events(Device* device);

// --- graph.cpp ---

// For calls that are not allowed while this thread captures: invalidates the capture and returns an
// error.
CUresult refuse_in_capture();
// For a wait inside a capture: makes the stream part of the capture.
CUresult join_capture(Stream& stream, const EventRecord& event_record);
void destroy_graphs(Device* device);

}  // namespace emu

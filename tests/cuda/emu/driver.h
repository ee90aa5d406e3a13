// What the parts of the emulated driver share: devices, memory, streams, events, graphs.
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

// One piece of a stream's work. Nothing may be kept in it that the host could change meanwhile,
// except what a real device would also read late.
struct Operation {
  std::string name;
  std::function<CUresult()> run;
  // Bookkeeping, done even when the device is broken: whoever waits for it must get an answer.
  bool runs_on_broken_device = false;
  // For an event of another stream.
  bool waits_for_event = false;
  // How often streams had been told to go on when it was enqueued.
  int resumes_before = 0;
};

struct Stream;
struct Device;

// One recording of an event. Waiting for an event is waiting for the mark it had at that moment.
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
  bool blocking;  // with the null stream
  std::deque<Operation> queue;
  bool running = false;  // an operation that has left the queue
  bool hangs = false;    // in an operation that never ends
  bool closed = false;
  std::shared_ptr<Capture> capture;
  std::thread thread;  // in the mode `threads`
};

// What a capture became; also its executable form, which shares it.
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
  // Of the memory pool: of `used_bytes`, and with what it keeps of what was freed.
  size_t pool_used = 0, pool_reserved = 0;
  uint64_t pool_threshold = 0;
  std::shared_ptr<Stream> null_stream;
};

// Guards every structure of this file. Never held while an operation runs.
extern std::mutex& state_mutex;
// Something finished: a queue moved on.
extern std::condition_variable& progress;

// Objects by handle. A handle is never used twice, so a stale one is always noticed.
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
  // Everything of one device, out of the table.
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

// The device of the calling thread's context, or an error: none current, or the device is broken.
// `kind` names the call for planned faults; one that breaks a device is left in `later`, to happen
// when the device gets there.
CUresult begin_call(const char* kind, Device*& device, CUresult* deferred_error = nullptr);
Device* current_device();
Device* device_at(int ordinal);

// --- module.cpp ---

// Dynamic shared memory of a block: without asking, and at most. As of capability 8.6.
constexpr int shared_default = 48 << 10, shared_max = 99 << 10;
void destroy_modules(Device* device);

// --- memory.cpp ---

// Writes the bytes a device may use at `address`, or 0 if it is not the device's memory.
size_t bytes_at(CUdeviceptr address);
bool is_freed(CUdeviceptr address);
bool is_pinned(const void* address, size_t bytes);
CUresult release_memory(CUdeviceptr address);
void release_all_memory(Device* device);
// The name of what ran last, if something was written outside of any allocation since.
CUresult check_guards(const std::string& suspect);

// --- stream.cpp ---

std::shared_ptr<Stream> new_stream(Device* device, const std::string& name, bool blocking);
// The stream of a handle, if it is one of this device.
std::shared_ptr<Stream> find_stream(Device* device, CUstream handle);
// Appends to the stream, or to the graph that it captures.
CUresult enqueue(const std::shared_ptr<Stream>& stream, Operation op);
// Waits for everything in the stream.
void synchronize(const std::shared_ptr<Stream>& stream);
void synchronize_device(Device* device);
void synchronize_all();
// Streams that hang go on behind what they hang in.
void resume_streams();
void destroy_streams(Device* device);

// Does one operation now, on behalf of the stream of that name.
CUresult run_operation(const std::string& where, const Operation& op);
// What broke the device, or CUDA_SUCCESS.
CUresult sticky_error(Device* device);
bool is_done(const EventRecord& event_record);
// Does what comes before the mark, or waits for it; false where its stream hangs.
bool run_until(const EventRecord& event_record);
// Waits for the mark.
void wait_for_record(const EventRecord& event_record);
// A program that asks again and again must come to an end, but not at the first question.
void make_progress(Stream& stream);

// --- event.cpp ---

void destroy_events(Device* device);

// --- graph.cpp ---

// For calls that must not be made while this thread captures. Spoils the capture and says so.
CUresult refuse_in_capture();
// A wait inside a capture: the stream becomes part of it.
CUresult join_capture(Stream& stream, const EventRecord& event_record);
void destroy_graphs(Device* device);

}  // namespace emu

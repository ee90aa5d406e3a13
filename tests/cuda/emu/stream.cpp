// Streams: queues of operations.
//
// In the mode `now` an operation runs when it is enqueued. In `lazy` an operation runs only when a
// call waits for it, so a program that forgets a wait sees old data every time. In `threads` each
// stream runs on its own thread.
#include <algorithm>

#include "driver.h"
#include "library.h"

namespace emu {

// These are never destroyed: threads of streams wait on them until the process ends.
std::mutex& state_mutex = *new std::mutex;
std::condition_variable& progress = *new std::condition_variable;
Handles<Stream>& streams = *new Handles<Stream>;

namespace {

// In the modes `now` and `lazy` one thread runs operations at a time. The mutex is recursive, since
// a wait inside one queue runs another queue.
std::recursive_mutex& executor_mutex = *new std::recursive_mutex;

// The number of times that streams have been resumed.
int resumes = 0;

using Lock = std::unique_lock<std::mutex>;
using ExecutorLock = std::lock_guard<std::recursive_mutex>;

void execute(Stream& stream, const Operation& op) {
  Device* device = stream.device;
  int resumes_before;
  {
    Lock lock(state_mutex);
    if (device->sticky_error != CUDA_SUCCESS && !op.runs_on_broken_device) return;
    resumes_before = op.waits_for_event ? resumes : op.resumes_before;
  }
  CUresult result = run_operation(stream.name, op);
  Lock lock(state_mutex);
  if (result == hang_code) {
    bool is_null = &stream == device->null_stream.get();
    if (is_null) complain_once("a null stream that hangs is not emulated");
    // If streams were resumed since, the stream must not hang: no further resume would come.
    stream.hangs = resumes_before == resumes;
    // An operation that waits for a stream that hangs runs again after that stream is resumed.
    if (op.waits_for_event) stream.queue.push_front(op);
  } else if (result != CUDA_SUCCESS && device->sticky_error == CUDA_SUCCESS) {
    device->sticky_error = result;
  }
}

bool run_next(Stream& stream) {
  Operation op;
  {
    Lock lock(state_mutex);
    if (stream.queue.empty() || stream.hangs) return false;
    op = std::move(stream.queue.front());
    stream.queue.pop_front();
  }
  execute(stream, op);
  return true;
}

// In the modes `now` and `lazy`, runs all operations up to the one in which the stream hangs.
void run_queue(Stream& stream) {
  ExecutorLock executor_lock(executor_mutex);
  while (run_next(stream)) {
  }
}

void run_stream_thread(std::shared_ptr<Stream> stream) {
  Lock lock(state_mutex);
  for (;;) {
    progress.wait(
        lock, [&] { return (!stream->queue.empty() && !stream->hangs) || stream->closed; });
    if (stream->queue.empty() || stream->hangs) return;
    Operation op = std::move(stream->queue.front());
    stream->queue.pop_front();
    stream->running = true;
    lock.unlock();
    execute(*stream, op);
    op = {};
    lock.lock();
    stream->running = false;
    progress.notify_all();
  }
}

std::vector<std::shared_ptr<Stream>> streams_of(Device* device) {
  Lock lock(state_mutex);
  std::vector<std::shared_ptr<Stream>> found;
  for (auto& [handle, stream] : streams.all)
    if (stream->device == device) found.push_back(stream);
  return found;
}

// The null stream and all blocking streams wait for each other, so its operations run at once.
CUresult run_on_null_stream(const std::shared_ptr<Stream>& null_stream, const Operation& op) {
  for (auto& stream : streams_of(null_stream->device)) {
    if (!stream->blocking) continue;
    if (stream->capture != nullptr) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    synchronize(stream);
  }
  ExecutorLock executor_lock(executor_mutex);
  execute(*null_stream, op);
  return CUDA_SUCCESS;
}

}  // namespace

CUresult run_operation(const std::string& where, const Operation& op) {
  trace("run", where, op.name);
  CUresult result = op.run();
  if (result == CUDA_SUCCESS && settings().check) result = check_guards(op.name);
  return result;
}

CUresult sticky_error(Device* device) {
  Lock lock(state_mutex);
  return device->sticky_error;
}

bool is_done(const EventRecord& event_record) {
  Lock lock(state_mutex);
  return event_record.done;
}

bool run_until(const EventRecord& event_record) {
  if (is_done(event_record)) return true;
  if (settings().streams == Streams::threads) {
    Lock lock(state_mutex);
    progress.wait(lock, [&] { return event_record.done; });
    return true;
  }
  ExecutorLock executor_lock(executor_mutex);
  for (;;) {
    while (!is_done(event_record) && run_next(*event_record.stream)) {
    }
    Lock lock(state_mutex);
    if (event_record.done || event_record.stream->hangs) return event_record.done;
    // The stream was resumed in between.
    if (event_record.stream->queue.empty()) return true;
  }
}

void wait_for_record(const EventRecord& event_record) {
  while (!run_until(event_record)) {
    Lock lock(state_mutex);
    progress.wait(lock, [&] { return !event_record.stream->hangs; });
  }
}

void make_progress(Stream& stream) {
  if (settings().streams != Streams::lazy) return;
  ExecutorLock executor_lock(executor_mutex);
  run_next(stream);
}

uintptr_t next_handle() {
  static uintptr_t last = 0x10000;
  return last += 16;
}

std::shared_ptr<Stream> new_stream(Device* device, const std::string& name, bool blocking) {
  auto stream = std::make_shared<Stream>();
  stream->device = device;
  stream->name = name;
  stream->blocking = blocking;
  return stream;
}

std::shared_ptr<Stream> find_stream(Device* device, CUstream handle) {
  if (handle == nullptr || handle == CU_STREAM_LEGACY) return device->null_stream;
  if (handle == CU_STREAM_PER_THREAD) complain_once("the stream per thread is not emulated");
  Lock lock(state_mutex);
  auto stream = streams.get(handle);
  return stream != nullptr && stream->device == device ? stream : nullptr;
}

CUresult enqueue(const std::shared_ptr<Stream>& stream, Operation op) {
  Device* device = stream->device;
  if (stream == device->null_stream) {
    trace("enqueue", stream->name, op.name);
    CUresult result = run_on_null_stream(stream, op);
    return result != CUDA_SUCCESS ? result : sticky_error(device);
  }
  Lock lock(state_mutex);
  op.resumes_before = resumes;
  if (stream->capture != nullptr) {
    if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    trace("capture", stream->name, op.name);
    stream->capture->operations.push_back(std::move(op));
    return CUDA_SUCCESS;
  }
  trace("enqueue", stream->name, op.name);
  switch (settings().streams) {
    case Streams::now:
      // The operation goes through the queue, where it stays if the stream hangs.
      stream->queue.push_back(std::move(op));
      lock.unlock();
      run_queue(*stream);
      return sticky_error(device);
    case Streams::lazy:
      stream->queue.push_back(std::move(op));
      return CUDA_SUCCESS;
    case Streams::threads:
      stream->queue.push_back(std::move(op));
      if (!stream->thread.joinable()) stream->thread = std::thread(run_stream_thread, stream);
      progress.notify_all();
      return CUDA_SUCCESS;
  }
  return CUDA_ERROR_UNKNOWN;
}

void synchronize(const std::shared_ptr<Stream>& stream) {
  if (settings().streams == Streams::threads) {
    Lock lock(state_mutex);
    progress.wait(
        lock, [&] { return stream->queue.empty() && !stream->running && !stream->hangs; });
    return;
  }
  for (;;) {
    run_queue(*stream);
    Lock lock(state_mutex);
    if (stream->queue.empty() && !stream->hangs) return;
    progress.wait(lock, [&] { return !stream->hangs; });
  }
}

void synchronize_device(Device* device) {
  for (auto& stream : streams_of(device)) synchronize(stream);
}

void synchronize_all() {
  std::vector<std::shared_ptr<Stream>> all;
  {
    Lock lock(state_mutex);
    for (auto& [handle, stream] : streams.all) all.push_back(stream);
  }
  for (auto& stream : all) synchronize(stream);
}

void resume_streams() {
  Lock lock(state_mutex);
  ++resumes;
  for (auto& [handle, stream] : streams.all) stream->hangs = false;
  progress.notify_all();
}

static void close_stream(const std::shared_ptr<Stream>& stream) {
  Lock lock(state_mutex);
  stream->closed = true;
  stream->capture = nullptr;
  if (stream->thread.joinable()) stream->thread.detach();
  progress.notify_all();
}

void destroy_streams(Device* device) {
  for (auto& stream : streams.remove_all_of(device)) close_stream(stream);
  destroy_events(device);
  destroy_graphs(device);
}

CUresult submit(CUstream handle, const char* kind, const std::string& name,
                std::function<void()> work) {
  Device* device;
  CUresult deferred_error = CUDA_SUCCESS;
  if (CUresult error = begin_call(kind, device, &deferred_error)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  count(kind);
  return enqueue(stream, {std::string(kind) + " " + name, [=] {
                            if (deferred_error == CUDA_SUCCESS) work();
                            return deferred_error;
                          }});
}

}  // namespace emu

using namespace emu;

// --- Streams ---

EMU_API CUresult cuStreamCreateWithPriority(CUstream* handle, unsigned flags, int) {
  static int created = 0;
  Device* device;
  if (CUresult error = begin_call("stream", device)) return error;
  count("live_streams");
  Lock lock(state_mutex);
  auto name = "d" + std::to_string(device->ordinal) + ".s" + std::to_string(++created);
  *handle = streams.insert<CUstream>(
      new_stream(device, name, (flags & CU_STREAM_NON_BLOCKING) == 0));
  return CUDA_SUCCESS;
}

EMU_API CUresult cuStreamCreate(CUstream* handle, unsigned flags) {
  return cuStreamCreateWithPriority(handle, flags, 0);
}

EMU_API CUresult cuStreamDestroy(CUstream handle) {
  std::shared_ptr<Stream> stream;
  {
    Lock lock(state_mutex);
    stream = streams.remove(handle);
  }
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  count("live_streams", -1);
  // The operations of the stream still run. On a device they would run later.
  synchronize(stream);
  close_stream(stream);
  return sticky_error(stream->device);
}

EMU_API CUresult cuStreamSynchronize(CUstream handle) {
  Device* device;
  if (CUresult error = begin_call("sync", device)) return error;
  if (CUresult error = refuse_in_capture()) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  trace("wait", stream->name, "stream");
  if (stream == device->null_stream) {
    run_on_null_stream(stream, {"sync", [] { return CUDA_SUCCESS; }});
  } else {
    synchronize(stream);
  }
  return sticky_error(device);
}

EMU_API CUresult cuStreamQuery(CUstream handle) {
  Device* device;
  if (CUresult error = begin_call("query", device)) return error;
  if (CUresult error = refuse_in_capture()) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  {
    Lock lock(state_mutex);
    if (stream->queue.empty() && !stream->running && !stream->hangs) return device->sticky_error;
  }
  make_progress(*stream);
  return CUDA_ERROR_NOT_READY;
}

EMU_API CUresult cuCtxSynchronize() {
  Device* device;
  if (CUresult error = begin_call("sync", device)) return error;
  if (CUresult error = refuse_in_capture()) return error;
  trace("wait", "d" + std::to_string(device->ordinal), "device");
  synchronize_device(device);
  return sticky_error(device);
}

EMU_API CUresult cuLaunchHostFunc(CUstream handle, CUhostFn call, void* data) {
  Device* device;
  if (CUresult error = begin_call("host", device)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return enqueue(stream, {"host", [=] { return call(data), CUDA_SUCCESS; }});
}

// Streams: queues of work.
//
// Every stream is a queue of work. In the mode `now` it is done when it comes. In `lazy` nothing is
// done until somebody waits for it, and then only what they wait for: whoever forgets a wait sees
// old data, every time. In `threads` each stream works on a thread of its own.
#include <algorithm>

#include "driver.h"
#include "library.h"

namespace emu {

// Never destroyed: threads of streams wait on them until the process ends.
std::mutex& state = *new std::mutex;
std::condition_variable& moved = *new std::condition_variable;
Handles<Stream>& streams = *new Handles<Stream>;

namespace {

// In the modes `now` and `lazy` one thread works at a time. A wait inside a queue works off another
// queue, hence recursive.
std::recursive_mutex& working = *new std::recursive_mutex;

// How often streams that hang were told to go on.
int rounds = 0;

using Lock = std::unique_lock<std::mutex>;
using Executor = std::lock_guard<std::recursive_mutex>;

void execute(Stream& stream, const Op& op) {
  Device* device = stream.device;
  int round;
  {
    Lock lock(state);
    if (device->broken != CUDA_SUCCESS && !op.always) return;
    round = op.waits ? rounds : op.round;
  }
  CUresult result = run_one(stream.name, op);
  Lock lock(state);
  if (result == never_ends) {
    bool is_null = &stream == device->null_stream.get();
    if (is_null) complain_once("a null stream that hangs is not emulated");
    // Unless streams were told to go on since: nobody would say so again.
    stream.hangs = round == rounds;
    // What waits for a stream that hangs waits again when that one goes on.
    if (op.waits) stream.queue.push_front(op);
  } else if (result != CUDA_SUCCESS && device->broken == CUDA_SUCCESS) {
    device->broken = result;
  }
}

bool execute_next(Stream& stream) {
  Op op;
  {
    Lock lock(state);
    if (stream.queue.empty() || stream.hangs) return false;
    op = std::move(stream.queue.front());
    stream.queue.pop_front();
  }
  execute(stream, op);
  return true;
}

// In the modes `now` and `lazy`: does all there is to do, up to where the stream hangs.
void work_off(Stream& stream) {
  Executor alone(working);
  while (execute_next(stream)) {
  }
}

void serve(std::shared_ptr<Stream> stream) {
  Lock lock(state);
  for (;;) {
    moved.wait(lock, [&] { return (!stream->queue.empty() && !stream->hangs) || stream->closed; });
    if (stream->queue.empty() || stream->hangs) return;
    Op op = std::move(stream->queue.front());
    stream->queue.pop_front();
    stream->running = true;
    lock.unlock();
    execute(*stream, op);
    op = {};
    lock.lock();
    stream->running = false;
    moved.notify_all();
  }
}

std::vector<std::shared_ptr<Stream>> streams_of(Device* device) {
  Lock lock(state);
  std::vector<std::shared_ptr<Stream>> found;
  for (auto& [handle, stream] : streams.all)
    if (stream->device == device) found.push_back(stream);
  return found;
}

// The null stream waits for all blocking streams, and they for it: it does its work at once.
CUresult run_on_null_stream(const std::shared_ptr<Stream>& null_stream, const Op& op) {
  for (auto& stream : streams_of(null_stream->device)) {
    if (!stream->blocking) continue;
    if (stream->capture != nullptr) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    finish(stream);
  }
  Executor alone(working);
  execute(*null_stream, op);
  return CUDA_SUCCESS;
}

}  // namespace

CUresult run_one(const std::string& where, const Op& op) {
  trace("run", where, op.name);
  CUresult result = op.run();
  if (result == CUDA_SUCCESS && settings().check) result = check_guards(op.name);
  return result;
}

CUresult broken(Device* device) {
  Lock lock(state);
  return device->broken;
}

bool is_done(const Mark& mark) {
  Lock lock(state);
  return mark.done;
}

bool reach(const Mark& mark) {
  if (is_done(mark)) return true;
  if (settings().streams == Streams::threads) {
    Lock lock(state);
    moved.wait(lock, [&] { return mark.done; });
    return true;
  }
  Executor alone(working);
  for (;;) {
    while (!is_done(mark) && execute_next(*mark.stream)) {
    }
    Lock lock(state);
    if (mark.done || mark.stream->hangs) return mark.done;
    // It was told to go on in between.
    if (mark.stream->queue.empty()) return true;
  }
}

void finish_mark(const Mark& mark) {
  while (!reach(mark)) {
    Lock lock(state);
    moved.wait(lock, [&] { return !mark.stream->hangs; });
  }
}

void make_progress(Stream& stream) {
  if (settings().streams != Streams::lazy) return;
  Executor alone(working);
  execute_next(stream);
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
  Lock lock(state);
  auto stream = streams.get(handle);
  return stream != nullptr && stream->device == device ? stream : nullptr;
}

CUresult enqueue(const std::shared_ptr<Stream>& stream, Op op) {
  Device* device = stream->device;
  if (stream == device->null_stream) {
    trace("enqueue", stream->name, op.name);
    CUresult result = run_on_null_stream(stream, op);
    return result != CUDA_SUCCESS ? result : broken(device);
  }
  Lock lock(state);
  op.round = rounds;
  if (stream->capture != nullptr) {
    if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    trace("capture", stream->name, op.name);
    stream->capture->ops.push_back(std::move(op));
    return CUDA_SUCCESS;
  }
  trace("enqueue", stream->name, op.name);
  switch (settings().streams) {
    case Streams::now:
      // Through the queue, where it stays if the stream hangs.
      stream->queue.push_back(std::move(op));
      lock.unlock();
      work_off(*stream);
      return broken(device);
    case Streams::lazy:
      stream->queue.push_back(std::move(op));
      return CUDA_SUCCESS;
    case Streams::threads:
      stream->queue.push_back(std::move(op));
      if (!stream->thread.joinable()) stream->thread = std::thread(serve, stream);
      moved.notify_all();
      return CUDA_SUCCESS;
  }
  return CUDA_ERROR_UNKNOWN;
}

void finish(const std::shared_ptr<Stream>& stream) {
  if (settings().streams == Streams::threads) {
    Lock lock(state);
    moved.wait(lock, [&] { return stream->queue.empty() && !stream->running && !stream->hangs; });
    return;
  }
  for (;;) {
    work_off(*stream);
    Lock lock(state);
    if (stream->queue.empty() && !stream->hangs) return;
    moved.wait(lock, [&] { return !stream->hangs; });
  }
}

void finish_device(Device* device) {
  for (auto& stream : streams_of(device)) finish(stream);
}

void finish_everything() {
  std::vector<std::shared_ptr<Stream>> all;
  {
    Lock lock(state);
    for (auto& [handle, stream] : streams.all) all.push_back(stream);
  }
  for (auto& stream : all) finish(stream);
}

void resume_streams() {
  Lock lock(state);
  ++rounds;
  for (auto& [handle, stream] : streams.all) stream->hangs = false;
  moved.notify_all();
}

static void close(const std::shared_ptr<Stream>& stream) {
  Lock lock(state);
  stream->closed = true;
  stream->capture = nullptr;
  if (stream->thread.joinable()) stream->thread.detach();
  moved.notify_all();
}

void forget_streams(Device* device) {
  for (auto& stream : streams.take_of(device)) close(stream);
  forget_events(device);
  forget_graphs(device);
}

CUresult submit(CUstream handle, const char* kind, const std::string& name,
                std::function<void()> work) {
  Device* device;
  CUresult later = CUDA_SUCCESS;
  if (CUresult error = enter(kind, device, &later)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  count(kind);
  return enqueue(stream, {std::string(kind) + " " + name, [=] {
                            if (later == CUDA_SUCCESS) work();
                            return later;
                          }});
}

}  // namespace emu

using namespace emu;

// --- Streams ---

EMU_API CUresult cuStreamCreateWithPriority(CUstream* handle, unsigned flags, int) {
  static int created = 0;
  Device* device;
  if (CUresult error = enter("stream", device)) return error;
  count("live_streams");
  Lock lock(state);
  auto name = "d" + std::to_string(device->ordinal) + ".s" + std::to_string(++created);
  *handle = streams.put<CUstream>(new_stream(device, name, (flags & CU_STREAM_NON_BLOCKING) == 0));
  return CUDA_SUCCESS;
}

EMU_API CUresult cuStreamCreate(CUstream* handle, unsigned flags) {
  return cuStreamCreateWithPriority(handle, flags, 0);
}

EMU_API CUresult cuStreamDestroy(CUstream handle) {
  std::shared_ptr<Stream> stream;
  {
    Lock lock(state);
    stream = streams.take(handle);
  }
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  count("live_streams", -1);
  // Its work is still done; on a device, later.
  finish(stream);
  close(stream);
  return broken(stream->device);
}

EMU_API CUresult cuStreamSynchronize(CUstream handle) {
  Device* device;
  if (CUresult error = enter("sync", device)) return error;
  if (CUresult error = refuse_in_capture()) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  trace("wait", stream->name, "stream");
  if (stream == device->null_stream) {
    run_on_null_stream(stream, {"sync", [] { return CUDA_SUCCESS; }});
  } else {
    finish(stream);
  }
  return broken(device);
}

EMU_API CUresult cuStreamQuery(CUstream handle) {
  Device* device;
  if (CUresult error = enter("query", device)) return error;
  if (CUresult error = refuse_in_capture()) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  {
    Lock lock(state);
    if (stream->queue.empty() && !stream->running && !stream->hangs) return device->broken;
  }
  make_progress(*stream);
  return CUDA_ERROR_NOT_READY;
}

EMU_API CUresult cuCtxSynchronize() {
  Device* device;
  if (CUresult error = enter("sync", device)) return error;
  if (CUresult error = refuse_in_capture()) return error;
  trace("wait", "d" + std::to_string(device->ordinal), "device");
  finish_device(device);
  return broken(device);
}

EMU_API CUresult cuLaunchHostFunc(CUstream handle, CUhostFn call, void* data) {
  Device* device;
  if (CUresult error = enter("host", device)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return enqueue(stream, {"host", [=] { return call(data), CUDA_SUCCESS; }});
}

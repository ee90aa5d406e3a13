// Streams, events, captures and graphs.
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
Handles<Event>& events = *new Handles<Event>;

namespace {

Handles<Graph>& graphs = *new Handles<Graph>;
Handles<Graph>& executables = *new Handles<Graph>;

// In the modes `now` and `lazy` one thread works at a time. A wait inside a queue works off another
// queue, hence recursive.
std::recursive_mutex& working = *new std::recursive_mutex;

using Lock = std::unique_lock<std::mutex>;
using Executor = std::lock_guard<std::recursive_mutex>;

CUresult run_one(const std::string& where, const Op& op) {
  trace("run", where, op.name);
  CUresult result = op.run();
  if (result == CUDA_SUCCESS && settings().check) result = check_guards(op.name);
  return result;
}

void execute(Stream& stream, const Op& op) {
  Device* device = stream.device;
  {
    Lock lock(state);
    if (device->broken != CUDA_SUCCESS && !op.always) return;
  }
  CUresult result = run_one(stream.name, op);
  Lock lock(state);
  if (result != CUDA_SUCCESS && device->broken == CUDA_SUCCESS) device->broken = result;
}

bool execute_next(Stream& stream) {
  Op op;
  {
    Lock lock(state);
    if (stream.queue.empty()) return false;
    op = std::move(stream.queue.front());
    stream.queue.pop_front();
  }
  execute(stream, op);
  return true;
}

bool is_done(const Mark& mark) {
  Lock lock(state);
  return mark.done;
}

void serve(std::shared_ptr<Stream> stream) {
  Lock lock(state);
  for (;;) {
    moved.wait(lock, [&] { return !stream->queue.empty() || stream->closed; });
    if (stream->queue.empty()) return;
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

// Waits for the mark; in `lazy`, by doing what comes before it.
void finish_mark(const Mark& mark) {
  switch (settings().streams) {
    case Streams::now: return;
    case Streams::lazy: {
      Executor alone(working);
      while (!is_done(mark) && execute_next(*mark.stream)) {
      }
      return;
    }
    case Streams::threads: {
      Lock lock(state);
      moved.wait(lock, [&] { return mark.done; });
    }
  }
}

// A program that asks again and again must come to an end, but not at the first question.
void make_progress(Stream& stream) {
  if (settings().streams != Streams::lazy) return;
  Executor alone(working);
  execute_next(stream);
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

bool forbids_unsafe_calls(const Capture& capture) {
  if (capture.mode == CU_STREAM_CAPTURE_MODE_RELAXED) return false;
  return capture.mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
         capture.thread == std::this_thread::get_id();
}

CUresult broken(Device* device) {
  Lock lock(state);
  return device->broken;
}

}  // namespace

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
  if (stream->capture != nullptr) {
    if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    trace("capture", stream->name, op.name);
    stream->capture->ops.push_back(std::move(op));
    return CUDA_SUCCESS;
  }
  trace("enqueue", stream->name, op.name);
  switch (settings().streams) {
    case Streams::now: {
      lock.unlock();
      Executor alone(working);
      execute(*stream, op);
      return broken(device);
    }
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
    moved.wait(lock, [&] { return stream->queue.empty() && !stream->running; });
    return;
  }
  Executor alone(working);
  while (execute_next(*stream)) {
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

CUresult refuse_in_capture() {
  Lock lock(state);
  for (auto& [handle, stream] : streams.all) {
    if (stream->capture == nullptr || !forbids_unsafe_calls(*stream->capture)) continue;
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return CUDA_SUCCESS;
}

static void close(const std::shared_ptr<Stream>& stream) {
  Lock lock(state);
  stream->closed = true;
  stream->capture = nullptr;
  if (stream->thread.joinable()) stream->thread.detach();
  moved.notify_all();
}

template <class T>
static std::vector<std::shared_ptr<T>> take_of(Handles<T>& handles, Device* device) {
  Lock lock(state);
  std::vector<std::shared_ptr<T>> taken;
  for (auto i = handles.all.begin(); i != handles.all.end();) {
    if (i->second->device != device) {
      ++i;
      continue;
    }
    taken.push_back(std::move(i->second));
    i = handles.all.erase(i);
  }
  return taken;
}

void forget_streams(Device* device) {
  for (auto& stream : take_of(streams, device)) close(stream);
  take_of(events, device);
  take_of(graphs, device);
  take_of(executables, device);
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

Graph::~Graph() {
  for (CUdeviceptr address : allocations) release_memory(address);
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
    if (stream->queue.empty() && !stream->running) return device->broken;
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

// --- Events ---

EMU_API CUresult cuEventCreate(CUevent* handle, unsigned flags) {
  static int created = 0;
  Device* device;
  if (CUresult error = enter("event", device)) return error;
  count("live_events");
  Lock lock(state);
  auto event = std::make_shared<Event>();
  event->device = device;
  event->name = "e" + std::to_string(++created);
  event->timed = (flags & CU_EVENT_DISABLE_TIMING) == 0;
  *handle = events.put<CUevent>(event);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuEventDestroy(CUevent handle) {
  std::shared_ptr<Event> event;
  {
    Lock lock(state);
    event = events.take(handle);
  }
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  count("live_events", -1);
  return broken(event->device);
}

static std::shared_ptr<Event> find_event(CUevent handle) {
  Lock lock(state);
  return events.get(handle);
}

static std::shared_ptr<Mark> mark_of(const Event& event) {
  Lock lock(state);
  return event.mark;
}

EMU_API CUresult cuEventRecord(CUevent handle, CUstream stream_handle) {
  Device* device;
  if (CUresult error = enter("record", device)) return error;
  auto stream = find_stream(device, stream_handle);
  auto event = find_event(handle);
  if (stream == nullptr || event == nullptr || event->device != device)
    return CUDA_ERROR_INVALID_HANDLE;
  count("records");
  auto mark = std::make_shared<Mark>();
  mark->stream = stream;
  mark->event = event->name;
  mark->captured = stream->capture != nullptr;
  Op record{"record " + event->name, [mark] {
              Lock lock(state);
              mark->done = true;
              mark->at = std::chrono::steady_clock::now();
              moved.notify_all();
              return CUDA_SUCCESS;
            }};
  record.always = true;
  CUresult result = mark->captured ? CUDA_SUCCESS : enqueue(stream, record);
  Lock lock(state);
  event->mark = mark;
  return result;
}

EMU_API CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned) {
  return cuEventRecord(event, stream);
}

// A wait between two captures, or out of one, has no meaning when the graph runs.
static CUresult join_capture(Stream& stream, const Mark& mark) {
  Lock lock(state);
  if (!mark.captured) {
    stream.capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  auto capture = mark.stream->capture;
  if (capture == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (stream.capture != nullptr && stream.capture != capture) return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  stream.capture = capture;
  return CUDA_SUCCESS;
}

EMU_API CUresult cuStreamWaitEvent(CUstream stream_handle, CUevent handle, unsigned) {
  Device* device;
  if (CUresult error = enter("wait", device)) return error;
  auto stream = find_stream(device, stream_handle);
  auto event = find_event(handle);
  if (stream == nullptr || event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  auto mark = mark_of(*event);
  if (mark == nullptr) return CUDA_SUCCESS;
  if (mark->captured || stream->capture != nullptr) return join_capture(*stream, *mark);
  Op wait{"wait " + event->name, [mark] { return finish_mark(*mark), CUDA_SUCCESS; }};
  wait.always = true;
  return enqueue(stream, wait);
}

EMU_API CUresult cuEventSynchronize(CUevent handle) {
  Device* device;
  if (CUresult error = enter("sync", device)) return error;
  auto event = find_event(handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  auto mark = mark_of(*event);
  if (mark != nullptr && mark->captured) return CUDA_ERROR_CAPTURED_EVENT;
  if (CUresult error = refuse_in_capture()) return error;
  if (mark == nullptr) return CUDA_SUCCESS;
  trace("wait", mark->stream->name, event->name);
  finish_mark(*mark);
  return broken(device);
}

EMU_API CUresult cuEventQuery(CUevent handle) {
  Device* device;
  if (CUresult error = enter("query", device)) return error;
  auto event = find_event(handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  auto mark = mark_of(*event);
  if (mark != nullptr && mark->captured) return CUDA_ERROR_CAPTURED_EVENT;
  if (CUresult error = refuse_in_capture()) return error;
  if (mark == nullptr || is_done(*mark)) return broken(device);
  make_progress(*mark->stream);
  return CUDA_ERROR_NOT_READY;
}

EMU_API CUresult cuEventElapsedTime(float* milliseconds, CUevent from_handle, CUevent to_handle) {
  auto from = find_event(from_handle), to = find_event(to_handle);
  if (from == nullptr || to == nullptr || !from->timed || !to->timed)
    return CUDA_ERROR_INVALID_HANDLE;
  auto start = mark_of(*from), end = mark_of(*to);
  if (start == nullptr || end == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!is_done(*start) || !is_done(*end)) return CUDA_ERROR_NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(end->at - start->at).count();
  return CUDA_SUCCESS;
}

// --- Captures and graphs ---

EMU_API CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
  Device* device;
  if (CUresult error = enter("capture", device)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (stream == device->null_stream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  Lock lock(state);
  if (stream->capture != nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  stream->capture = std::make_shared<Capture>();
  stream->capture->mode = mode;
  stream->capture->thread = std::this_thread::get_id();
  stream->capture->origin = stream.get();
  trace("capture", stream->name, "begin");
  return CUDA_SUCCESS;
}

EMU_API CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph_handle) {
  *graph_handle = nullptr;
  Device* device;
  if (CUresult error = enter("capture", device)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  Lock lock(state);
  auto capture = stream->capture;
  if (capture == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != stream.get()) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
      capture->thread != std::this_thread::get_id())
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  for (auto& [other_handle, other] : streams.all)
    if (other->capture == capture) other->capture = nullptr;
  trace("capture", stream->name, "end");
  auto graph = std::make_shared<Graph>();
  graph->device = device;
  graph->ops = std::move(capture->ops);
  graph->allocations = std::move(capture->allocations);
  bool valid = !capture->invalid;
  if (valid) *graph_handle = graphs.put<CUgraph>(graph);
  lock.unlock();
  return valid ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
}

EMU_API CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  Device* device;
  if (CUresult error = enter("query", device)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  Lock lock(state);
  *status = stream->capture == nullptr   ? CU_STREAM_CAPTURE_STATUS_NONE
            : stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                       : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  return CUDA_SUCCESS;
}

EMU_API CUresult cuGraphInstantiateWithFlags(CUgraphExec* handle, CUgraph graph_handle,
                                             unsigned long long) {
  Device* device;
  if (CUresult error = enter("instantiate", device)) return error;
  Lock lock(state);
  auto graph = graphs.get(graph_handle);
  if (graph == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *handle = executables.put<CUgraphExec>(graph);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  Lock lock(state);
  auto graph = graphs.get(handle);
  if (graph == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (nodes != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  *count = graph->ops.size();
  return CUDA_SUCCESS;
}

static std::shared_ptr<Graph> find_executable(CUgraphExec handle) {
  Lock lock(state);
  return executables.get(handle);
}

EMU_API CUresult cuGraphUpload(CUgraphExec handle, CUstream) {
  Device* device;
  if (CUresult error = enter("graph_upload", device)) return error;
  return find_executable(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

EMU_API CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
  Device* device;
  CUresult later = CUDA_SUCCESS;
  if (CUresult error = enter("graph", device, &later)) return error;
  auto graph = find_executable(handle);
  auto stream = find_stream(device, stream_handle);
  if (graph == nullptr || stream == nullptr || graph->device != device)
    return CUDA_ERROR_INVALID_HANDLE;
  count("graph_launches");
  std::string where = stream->name;
  return enqueue(stream, {"graph of " + std::to_string(graph->ops.size()), [=] {
                            if (later != CUDA_SUCCESS) return later;
                            for (const Op& op : graph->ops)
                              if (CUresult error = run_one(where, op)) return error;
                            return CUDA_SUCCESS;
                          }});
}

template <class H>
static CUresult destroy_graph(Handles<Graph>& handles, H handle) {
  std::shared_ptr<Graph> graph;
  Lock lock(state);
  graph = handles.take(handle);
  lock.unlock();
  return graph == nullptr ? CUDA_ERROR_INVALID_HANDLE : broken(graph->device);
}

EMU_API CUresult cuGraphDestroy(CUgraph handle) { return destroy_graph(graphs, handle); }

EMU_API CUresult cuGraphExecDestroy(CUgraphExec handle) { return destroy_graph(executables, handle); }

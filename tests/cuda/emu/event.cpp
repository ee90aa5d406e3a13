// Events: marks that a stream reaches, to wait for and to measure time between.
#include "driver.h"

namespace emu {
namespace {

using Lock = std::unique_lock<std::mutex>;

Handles<Event>& events = *new Handles<Event>;

std::shared_ptr<Event> find_event(CUevent handle) {
  Lock lock(state);
  return events.get(handle);
}

std::shared_ptr<Mark> mark_of(const Event& event) {
  Lock lock(state);
  return event.mark;
}

}  // namespace

void forget_events(Device* device) {
  Lock lock(state);
  events.take_of(device);
}

}  // namespace emu

using namespace emu;

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

EMU_API CUresult cuStreamWaitEvent(CUstream stream_handle, CUevent handle, unsigned) {
  Device* device;
  if (CUresult error = enter("wait", device)) return error;
  auto stream = find_stream(device, stream_handle);
  auto event = find_event(handle);
  if (stream == nullptr || event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  auto mark = mark_of(*event);
  if (mark == nullptr) return CUDA_SUCCESS;
  if (mark->captured || stream->capture != nullptr) return join_capture(*stream, *mark);
  // Whoever waits for what hangs, hangs.
  Op wait{"wait " + event->name, [mark] { return reach(*mark) ? CUDA_SUCCESS : never_ends; }};
  wait.always = true;
  wait.waits = true;
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

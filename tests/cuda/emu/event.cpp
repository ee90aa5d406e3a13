// Events: recorded in a stream, to wait for and to measure time between.
#include "driver.h"

namespace emu {
namespace {

using Lock = std::unique_lock<std::mutex>;

Handles<Event>& events = *new Handles<Event>;

std::shared_ptr<Event> find_event(CUevent handle) {
  Lock lock(state_mutex);
  return events.get(handle);
}

std::shared_ptr<EventRecord> last_record_of(const Event& event) {
  Lock lock(state_mutex);
  return event.last_record;
}

}  // namespace

void destroy_events(Device* device) {
  Lock lock(state_mutex);
  events.remove_all_of(device);
}

}  // namespace emu

using namespace emu;

EMU_API CUresult cuEventCreate(CUevent* handle, unsigned flags) {
  static int created = 0;
  Device* device;
  if (CUresult error = begin_call("event", device)) return error;
  count("live_events");
  Lock lock(state_mutex);
  auto event = std::make_shared<Event>();
  event->device = device;
  event->name = "e" + std::to_string(++created);
  event->has_time = (flags & CU_EVENT_DISABLE_TIMING) == 0;
  *handle = events.insert<CUevent>(event);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuEventDestroy(CUevent handle) {
  std::shared_ptr<Event> event;
  {
    Lock lock(state_mutex);
    event = events.remove(handle);
  }
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  count("live_events", -1);
  return sticky_error(event->device);
}

EMU_API CUresult cuEventRecord(CUevent handle, CUstream stream_handle) {
  Device* device;
  if (CUresult error = begin_call("record", device)) return error;
  auto stream = find_stream(device, stream_handle);
  auto event = find_event(handle);
  if (stream == nullptr || event == nullptr || event->device != device)
    return CUDA_ERROR_INVALID_HANDLE;
  count("records");
  auto event_record = std::make_shared<EventRecord>();
  event_record->stream = stream;
  event_record->event = event->name;
  event_record->captured = stream->capture != nullptr;
  Operation record{"record " + event->name, [event_record] {
              Lock lock(state_mutex);
              event_record->done = true;
              event_record->time = std::chrono::steady_clock::now();
              progress.notify_all();
              return CUDA_SUCCESS;
            }};
  record.runs_on_broken_device = true;
  CUresult result = event_record->captured ? CUDA_SUCCESS : enqueue(stream, record);
  Lock lock(state_mutex);
  event->last_record = event_record;
  return result;
}

EMU_API CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned) {
  return cuEventRecord(event, stream);
}

EMU_API CUresult cuStreamWaitEvent(CUstream stream_handle, CUevent handle, unsigned) {
  Device* device;
  if (CUresult error = begin_call("wait", device)) return error;
  auto stream = find_stream(device, stream_handle);
  auto event = find_event(handle);
  if (stream == nullptr || event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  auto event_record = last_record_of(*event);
  if (event_record == nullptr) return CUDA_SUCCESS;
  if (event_record->captured || stream->capture != nullptr)
    return join_capture(*stream, *event_record);
  // A stream that waits for a stream that hangs, hangs too.
  Operation wait{"wait " + event->name, [event_record] {
                   return run_until(*event_record) ? CUDA_SUCCESS : hang_code;
                 }};
  wait.runs_on_broken_device = true;
  wait.waits_for_event = true;
  return enqueue(stream, wait);
}

EMU_API CUresult cuEventSynchronize(CUevent handle) {
  Device* device;
  if (CUresult error = begin_call("sync", device)) return error;
  auto event = find_event(handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  auto event_record = last_record_of(*event);
  if (event_record != nullptr && event_record->captured) return CUDA_ERROR_CAPTURED_EVENT;
  if (CUresult error = refuse_in_capture()) return error;
  if (event_record == nullptr) return CUDA_SUCCESS;
  trace("wait", event_record->stream->name, event->name);
  wait_for_record(*event_record);
  return sticky_error(device);
}

EMU_API CUresult cuEventQuery(CUevent handle) {
  Device* device;
  if (CUresult error = begin_call("query", device)) return error;
  auto event = find_event(handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  auto event_record = last_record_of(*event);
  if (event_record != nullptr && event_record->captured) return CUDA_ERROR_CAPTURED_EVENT;
  if (CUresult error = refuse_in_capture()) return error;
  if (event_record == nullptr || is_done(*event_record)) return sticky_error(device);
  make_progress(*event_record->stream);
  return CUDA_ERROR_NOT_READY;
}

EMU_API CUresult cuEventElapsedTime(float* milliseconds, CUevent from_handle, CUevent to_handle) {
  auto from = find_event(from_handle), to = find_event(to_handle);
  if (from == nullptr || to == nullptr || !from->has_time || !to->has_time)
    return CUDA_ERROR_INVALID_HANDLE;
  auto start = last_record_of(*from), end = last_record_of(*to);
  if (start == nullptr || end == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!is_done(*start) || !is_done(*end)) return CUDA_ERROR_NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return CUDA_SUCCESS;
}

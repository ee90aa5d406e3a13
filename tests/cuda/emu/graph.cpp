// Captures and graphs: operations that are recorded once and run as often as the graph is launched.
#include "driver.h"

namespace emu {
namespace {

using Lock = std::unique_lock<std::mutex>;

Handles<Graph>& graphs = *new Handles<Graph>;
Handles<Graph>& executables = *new Handles<Graph>;

bool forbids_unsafe_calls(const Capture& capture) {
  if (capture.mode == CU_STREAM_CAPTURE_MODE_RELAXED) return false;
  return capture.mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
         capture.thread == std::this_thread::get_id();
}

std::shared_ptr<Graph> find_executable(CUgraphExec handle) {
  Lock lock(state_mutex);
  return executables.get(handle);
}

template <class H>
CUresult destroy_graph(Handles<Graph>& handles, H handle) {
  std::shared_ptr<Graph> graph;
  Lock lock(state_mutex);
  graph = handles.remove(handle);
  lock.unlock();
  return graph == nullptr ? CUDA_ERROR_INVALID_HANDLE : sticky_error(graph->device);
}

}  // namespace

CUresult refuse_in_capture() {
  Lock lock(state_mutex);
  for (auto& [handle, stream] : streams.all) {
    if (stream->capture == nullptr || !forbids_unsafe_calls(*stream->capture)) continue;
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return CUDA_SUCCESS;
}

// A wait between two captures, or for an event outside of a capture, has no meaning in a graph.
CUresult join_capture(Stream& stream, const EventRecord& event_record) {
  Lock lock(state_mutex);
  if (!event_record.captured) {
    stream.capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  auto capture = event_record.stream->capture;
  if (capture == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (stream.capture != nullptr && stream.capture != capture) return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  stream.capture = capture;
  return CUDA_SUCCESS;
}

void destroy_graphs(Device* device) {
  std::vector<std::shared_ptr<Graph>> destroyed_graphs, destroyed_executables;
  Lock lock(state_mutex);
  destroyed_graphs = graphs.remove_all_of(device);
  destroyed_executables = executables.remove_all_of(device);
  // The vectors free the graphs' memory when this function ends, without the lock.
  lock.unlock();
}

Graph::~Graph() {
  for (CUdeviceptr address : allocations) release_memory(address);
}

}  // namespace emu

using namespace emu;

EMU_API CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
  Device* device;
  if (CUresult error = begin_call("capture", device)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (stream == device->null_stream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  Lock lock(state_mutex);
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
  if (CUresult error = begin_call("capture", device)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  Lock lock(state_mutex);
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
  graph->operations = std::move(capture->operations);
  graph->allocations = std::move(capture->allocations);
  bool valid = !capture->invalid;
  if (valid) *graph_handle = graphs.insert<CUgraph>(graph);
  lock.unlock();
  return valid ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
}

EMU_API CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  Device* device;
  if (CUresult error = begin_call("query", device)) return error;
  auto stream = find_stream(device, handle);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  Lock lock(state_mutex);
  *status = stream->capture == nullptr   ? CU_STREAM_CAPTURE_STATUS_NONE
            : stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                       : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  return CUDA_SUCCESS;
}

EMU_API CUresult cuGraphInstantiateWithFlags(CUgraphExec* handle, CUgraph graph_handle,
                                             unsigned long long) {
  Device* device;
  if (CUresult error = begin_call("instantiate", device)) return error;
  Lock lock(state_mutex);
  auto graph = graphs.get(graph_handle);
  if (graph == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *handle = executables.insert<CUgraphExec>(graph);
  return CUDA_SUCCESS;
}

EMU_API CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  Lock lock(state_mutex);
  auto graph = graphs.get(handle);
  if (graph == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (nodes != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  *count = graph->operations.size();
  return CUDA_SUCCESS;
}

EMU_API CUresult cuGraphUpload(CUgraphExec handle, CUstream) {
  Device* device;
  if (CUresult error = begin_call("graph_upload", device)) return error;
  return find_executable(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

EMU_API CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
  Device* device;
  CUresult deferred_error = CUDA_SUCCESS;
  if (CUresult error = begin_call("graph", device, &deferred_error)) return error;
  auto graph = find_executable(handle);
  auto stream = find_stream(device, stream_handle);
  if (graph == nullptr || stream == nullptr || graph->device != device)
    return CUDA_ERROR_INVALID_HANDLE;
  count("graph_launches");
  std::string where = stream->name;
  return enqueue(stream, {"graph of " + std::to_string(graph->operations.size()), [=] {
                            if (deferred_error != CUDA_SUCCESS) return deferred_error;
                            for (const Operation& op : graph->operations)
                              if (CUresult error = run_operation(where, op)) return error;
                            return CUDA_SUCCESS;
                          }});
}

EMU_API CUresult cuGraphDestroy(CUgraph handle) { return destroy_graph(graphs, handle); }

EMU_API CUresult cuGraphExecDestroy(CUgraphExec handle) { return destroy_graph(executables, handle); }

// The emulator's own test: `tests/cuda/build --test OUT`.
#include <cuda.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

extern "C" {
int64_t emu_counter(const char* name);
int emu_set(const char* name, const char* value);
int cublasCreate_v2(void**);
int cublasDestroy_v2(void*);
int cublasSetStream_v2(void*, CUstream);
int cublasGemmStridedBatchedEx(void*, int, int, int, int, int, const void*, const void*, int, int, long long,
                               const void*, int, int, long long, const void*, void*, int, int, long long, int, int,
                               int);
int cudnnCreate(void**);
int cudnnDestroy(void*);
int cudnnSetStream(void*, CUstream);
int cudnnCreateTensorDescriptor(void**);
int cudnnCreateFilterDescriptor(void**);
int cudnnCreateConvolutionDescriptor(void**);
int cudnnCreateActivationDescriptor(void**);
int cudnnDestroyTensorDescriptor(void*);
int cudnnDestroyFilterDescriptor(void*);
int cudnnDestroyConvolutionDescriptor(void*);
int cudnnDestroyActivationDescriptor(void*);
int cudnnSetTensor4dDescriptor(void*, int, int, int, int, int, int);
int cudnnSetFilter4dDescriptor(void*, int, int, int, int, int, int);
int cudnnSetConvolution2dDescriptor(void*, int, int, int, int, int, int, int, int);
int cudnnSetConvolutionGroupCount(void*, int);
int cudnnSetActivationDescriptor(void*, int, int, double);
int cudnnGetConvolution2dForwardOutputDim(void*, void*, void*, int*, int*, int*, int*);
int cudnnGetConvolutionForwardWorkspaceSize(void*, void*, void*, void*, void*, int, size_t*);
int cudnnConvolutionBiasActivationForward(void*, const void*, void*, const void*, void*, const void*, void*, int, void*,
                                          size_t, const void*, void*, const void*, void*, const void*, void*, void*,
                                          void*);
}

namespace {

int failures = 0;

#define CHECK(condition)                                                     \
  do {                                                                       \
    if (!(condition)) {                                                      \
      printf("  %s:%d: %s\n", __FILE__, __LINE__, #condition);               \
      failures++;                                                            \
    }                                                                        \
  } while (0)
#define OK(call) CHECK((call) == CUDA_SUCCESS)

// The part of the PTX of selftest.cu that the driver reads.
const char* ptx = R"(
.version 9.0
.target sm_75
.visible .entry add_one(.param .align 8 .b8 add_one_param_0[16]) { ret; }
.visible .entry block_sums(.param .u64 a, .param .u64 b) .maxntid 256, 1, 1 { ret; }
.visible .entry block_sums_without_barriers(.param .u64 a, .param .u64 b) { ret; }
.visible .entry reverse(.param .u64 a) { ret; }
.visible .entry warp_sums(.param .u64 a, .param .u64 b, .param .u64 c) { ret; }
.visible .entry shift_down(.param .u64 a) { ret; }
.visible .entry count_values(.param .u64 a, .param .u64 b, .param .u32 c) { ret; }
.visible .entry wait_at_two_places(.param .u64 a) { ret; }
.visible .entry write_behind(.param .u64 a) { ret; }
)";

// An open device. Its destructor ends the context and all it holds.
struct Device {
  CUcontext context = nullptr;
  CUmodule module = nullptr;
  CUstream stream = nullptr;
  int ordinal;

  explicit Device(int ordinal = 0) : ordinal(ordinal) {
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, ordinal));
    prepare();
  }
  ~Device() {
    emu_set("fault", "");
    OK(cuDevicePrimaryCtxRelease(ordinal));
    cuCtxSetCurrent(nullptr);
    emu_set("streams", "now");
    emu_set("check", "0");
    emu_set("memory_mib", "4096");
  }
  void prepare() {
    OK(cuCtxSetCurrent(context));
    OK(cuModuleLoadData(&module, ptx));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  }
  CUfunction function(const char* name) {
    CUfunction found = nullptr;
    OK(cuModuleGetFunction(&found, module, name));
    return found;
  }
};

CUdeviceptr allocate(size_t bytes) {
  CUdeviceptr address = 0;
  OK(cuMemAlloc(&address, bytes));
  return address;
}

template <class T>
CUdeviceptr upload(const std::vector<T>& values) {
  CUdeviceptr address = allocate(values.size() * sizeof(T));
  OK(cuMemcpyHtoD(address, values.data(), values.size() * sizeof(T)));
  return address;
}

template <class T = float>
std::vector<T> download(CUdeviceptr address, size_t length) {
  std::vector<T> values(length);
  OK(cuMemcpyDtoH(values.data(), address, length * sizeof(T)));
  return values;
}

template <class... A>
CUresult launch(CUfunction function, unsigned blocks, unsigned threads, unsigned shared, CUstream stream, A... given) {
  void* arguments[] = {&given...};
  return cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream, arguments, nullptr);
}

struct Span {
  CUdeviceptr data;
  unsigned length;
};

// Returns pseudo-random numbers, the same for each run.
std::vector<float> numbers(size_t length, unsigned seed = 1) {
  std::vector<float> values(length);
  for (float& value : values) {
    seed = seed * 1664525 + 1013904223;
    value = float(seed >> 16 & 0xff) / 128 - 1;
  }
  return values;
}

std::vector<_Float16> halves(const std::vector<float>& values) { return {values.begin(), values.end()}; }

// --- Kernels ---

void threads_of_a_block_meet_at_barriers() {
  Device device;
  auto x = numbers(256 * 37);
  CUdeviceptr in = upload(x), out = allocate(37 * 4);
  OK(launch(device.function("block_sums"), 37, 256, 0, nullptr, in, out));
  auto sums = download(out, 37);
  for (size_t block = 0; block < 37; block++) {
    float sum = 0;
    for (size_t i = 0; i < 256; i++) sum += x[block * 256 + i];
    CHECK(std::abs(sums[block] - sum) < 1e-3);
  }
}

void a_forgotten_barrier_gives_wrong_numbers() {
  Device device;
  CUdeviceptr in = upload(std::vector<float>(256, 1)), out = allocate(4);
  OK(launch(device.function("block_sums_without_barriers"), 1, 256, 0, nullptr, in, out));
  CHECK(download(out, 1)[0] != 256);
}

void dynamic_shared_memory_has_the_size_that_was_asked_for() {
  Device device;
  CUdeviceptr x = upload(std::vector<float>{1, 2, 3, 4});
  CUfunction reverse = device.function("reverse");
  OK(launch(reverse, 1, 4, 16, nullptr, x));
  CHECK((download(x, 4) == std::vector<float>{4, 3, 2, 1}));
  CHECK(launch(reverse, 1, 4, 80 << 10, nullptr, x) == CUDA_ERROR_INVALID_VALUE);
  OK(cuFuncSetAttribute(reverse, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 80 << 10));
  OK(launch(reverse, 1, 4, 80 << 10, nullptr, x));
}

void lanes_of_a_warp_exchange_values() {
  Device device;
  std::vector<float> x(40);
  for (size_t i = 0; i < 40; i++) x[i] = float(i);
  CUdeviceptr in = upload(x), sums = allocate(160), votes = allocate(160);
  OK(launch(device.function("warp_sums"), 1, 40, 0, nullptr, in, sums, votes));
  auto sum = download(sums, 40);
  auto vote = download<unsigned>(votes, 40);
  CHECK(sum[0] == 496 && sum[31] == 496);  // 0 + ... + 31
  CHECK(sum[32] == 284 && sum[39] == 284);  // 32 + ... + 39
  CHECK(vote[5] == 0x49249249 && vote[33] == 0x92);
}

void lanes_that_returned_are_not_waited_for() {
  Device device;
  std::vector<float> x(32);
  for (size_t i = 0; i < 32; i++) x[i] = float(i);
  CUdeviceptr in = upload(x);
  OK(launch(device.function("shift_down"), 1, 32, 0, nullptr, in));
  auto y = download(in, 32);
  CHECK(y[6] == 6 && y[7] == 8 && y[30] == 31 && y[31] == 31);
}

void threads_that_never_meet_are_a_failed_launch() {
  Device device;
  CUdeviceptr x = upload(numbers(32));
  CHECK(launch(device.function("wait_at_two_places"), 1, 32, 0, nullptr, x) == CUDA_ERROR_LAUNCH_FAILED);
}

void blocks_on_several_cores_add_up() {
  Device device;
  std::vector<unsigned char> x(1 << 20);
  for (size_t i = 0; i < x.size(); i++) x[i] = (unsigned char)(i % 251);
  CUdeviceptr in = upload(x), counts = allocate(256 * 4);
  OK(cuMemsetD8(counts, 0, 256 * 4));
  OK(launch(device.function("count_values"), 64, 128, 0, nullptr, in, counts, unsigned(x.size())));
  auto count = download<unsigned>(counts, 256);
  CHECK(count[0] == (1 << 20) / 251 + 1 && count[250] == (1 << 20) / 251 && count[255] == 0);
}

void a_launch_has_limits() {
  Device device;
  CUdeviceptr x = upload(numbers(256)), out = allocate(4);
  CUfunction sums = device.function("block_sums");
  CHECK(launch(sums, 1, 257, 0, nullptr, x, out) == CUDA_ERROR_INVALID_VALUE);  // its launch bound
  CHECK(launch(device.function("reverse"), 1, 1025, 0, nullptr, x) == CUDA_ERROR_INVALID_VALUE);
  CHECK(launch(sums, 0, 256, 0, nullptr, x, out) == CUDA_ERROR_INVALID_VALUE);
  void* arguments[] = {&x, &out};
  CHECK(cuLaunchKernel(sums, 1, 65536, 1, 1, 1, 1, 0, nullptr, arguments, nullptr) == CUDA_ERROR_INVALID_VALUE);
}

void a_module_has_the_kernels_of_its_text() {
  Device device;
  CUfunction found;
  CHECK(cuModuleGetFunction(&found, device.module, "to_half") == CUDA_ERROR_NOT_FOUND);
  CHECK(cuModuleGetFunction(&found, device.module, "write_behind") == CUDA_ERROR_INVALID_IMAGE);
  CUmodule module;
  CHECK(cuModuleLoadData(&module, "") == CUDA_ERROR_INVALID_PTX);
}

// --- Streams ---

struct Pinned {
  float* data;
  explicit Pinned(size_t length) { OK(cuMemHostAlloc(reinterpret_cast<void**>(&data), length * 4, 0)); }
  ~Pinned() { OK(cuMemFreeHost(data)); }
};

void lazy_work_waits_until_somebody_waits_for_it() {
  emu_set("streams", "lazy");
  Device device;
  Pinned in(4), out(4);
  CUdeviceptr x = allocate(16);
  for (int i = 0; i < 4; i++) in.data[i] = 1;
  OK(cuMemcpyHtoDAsync(x, in.data, 16, device.stream));
  OK(launch(device.function("add_one"), 1, 32, 0, device.stream, Span{x, 4}));
  OK(cuMemcpyDtoHAsync(out.data, x, 16, device.stream));
  CHECK(std::isnan(out.data[0]));
  // A program that overwrites memory before its copy has run sees the new value.
  in.data[0] = 41;
  OK(cuStreamSynchronize(device.stream));
  CHECK(out.data[0] == 42 && out.data[1] == 2);
}

// Uploads on one stream and computes on another, with or without a wait between them.
float upload_and_compute(bool waits) {
  Device device;
  Pinned in(1), out(1);
  CUstream copies;
  CUevent copied;
  OK(cuStreamCreate(&copies, CU_STREAM_NON_BLOCKING));
  OK(cuEventCreate(&copied, CU_EVENT_DISABLE_TIMING));
  CUdeviceptr x = allocate(4);
  in.data[0] = 1;
  OK(cuMemcpyHtoDAsync(x, in.data, 4, copies));
  OK(cuEventRecord(copied, copies));
  if (waits) OK(cuStreamWaitEvent(device.stream, copied, 0));
  OK(launch(device.function("add_one"), 1, 1, 0, device.stream, Span{x, 1}));
  OK(cuMemcpyDtoHAsync(out.data, x, 4, device.stream));
  OK(cuStreamSynchronize(device.stream));
  return out.data[0];
}

void a_forgotten_wait_shows_in_lazy_streams() {
  emu_set("streams", "lazy");
  CHECK(upload_and_compute(true) == 2);
  emu_set("streams", "lazy");
  CHECK(std::isnan(upload_and_compute(false)));
}

void streams_on_threads_wait_for_each_other() {
  for (int i = 0; i < 50; i++) {
    emu_set("streams", "threads");
    CHECK(upload_and_compute(true) == 2);
  }
}

void asking_an_event_again_and_again_comes_to_an_end() {
  emu_set("streams", "lazy");
  Device device;
  CUevent event;
  OK(cuEventCreate(&event, 0));
  OK(cuEventQuery(event));
  CUdeviceptr x = upload(std::vector<float>{1});
  for (int i = 0; i < 3; i++) OK(launch(device.function("add_one"), 1, 1, 0, device.stream, Span{x, 1}));
  OK(cuEventRecord(event, device.stream));
  int asked = 1;
  while (cuEventQuery(event) == CUDA_ERROR_NOT_READY) asked++;
  CHECK(asked == 5);
  CHECK(download(x, 1)[0] == 4);
}

void an_event_is_the_mark_it_had_when_it_was_waited_for() {
  emu_set("streams", "lazy");
  Device device;
  CUstream other;
  CUevent event;
  OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
  OK(cuEventCreate(&event, 0));
  CUdeviceptr x = upload(std::vector<float>{0}), y = upload(std::vector<float>{0});
  CUfunction add_one = device.function("add_one");
  OK(launch(add_one, 1, 1, 0, device.stream, Span{x, 1}));
  OK(cuEventRecord(event, device.stream));
  OK(cuStreamWaitEvent(other, event, 0));
  OK(launch(add_one, 1, 1, 0, device.stream, Span{y, 1}));
  OK(cuEventRecord(event, device.stream));
  OK(cuStreamSynchronize(other));
  CHECK(download(x, 1)[0] == 1 && download(y, 1)[0] == 0);
  OK(cuEventSynchronize(event));
  CHECK(download(y, 1)[0] == 1);
}

void the_time_between_two_events_is_measured() {
  Device device;
  CUevent from, to;
  OK(cuEventCreate(&from, 0));
  OK(cuEventCreate(&to, 0));
  OK(cuEventRecord(from, device.stream));
  OK(cuEventRecord(to, device.stream));
  float milliseconds = -1;
  OK(cuEventElapsedTime(&milliseconds, from, to));
  CHECK(milliseconds >= 0);
}

void the_trace_tells_what_was_enqueued_and_what_ran() {
  emu_set("streams", "lazy");
  std::string path = "/tmp/emu-trace-" + std::to_string(rand());
  {
    Device device;
    CUdeviceptr x = upload(std::vector<float>{1});
    emu_set("trace", path.c_str());
    OK(launch(device.function("add_one"), 1, 1, 0, device.stream, Span{x, 1}));
    OK(cuStreamSynchronize(device.stream));
    emu_set("trace", "");
  }
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  size_t enqueued = text.str().find("enqueue d0.s"), ran = text.str().find("run d0.s");
  CHECK(enqueued < ran && ran != std::string::npos);
  CHECK(text.str().find("kernel add_one") != std::string::npos);
  remove(path.c_str());
}

// --- Captures ---

void a_graph_does_again_what_was_captured() {
  for (const char* mode : {"now", "lazy", "threads"}) {
    emu_set("streams", mode);
    Device device;
    Pinned out(4);
    CUdeviceptr x = upload(std::vector<float>(4, 0));
    CUgraph graph;
    CUgraphExec executable;
    OK(cuStreamBeginCapture(device.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(launch(device.function("add_one"), 1, 32, 0, device.stream, Span{x, 4}));
    OK(launch(device.function("add_one"), 1, 32, 0, device.stream, Span{x, 2}));
    OK(cuMemcpyDtoHAsync(out.data, x, 16, device.stream));
    OK(cuStreamEndCapture(device.stream, &graph));
    CHECK(download(x, 1)[0] == 0);
    OK(cuGraphInstantiateWithFlags(&executable, graph, 0));
    OK(cuGraphUpload(executable, device.stream));
    for (int i = 0; i < 3; i++) OK(cuGraphLaunch(executable, device.stream));
    OK(cuStreamSynchronize(device.stream));
    CHECK(out.data[0] == 6 && out.data[3] == 3);
    OK(cuGraphExecDestroy(executable));
    OK(cuGraphDestroy(graph));
  }
}

void a_capture_refuses_what_it_cannot_hold() {
  Device device;
  CUdeviceptr x;
  CUgraph graph;
  CUevent before;
  OK(cuEventCreate(&before, 0));
  OK(cuEventRecord(before, device.stream));
  OK(cuStreamBeginCapture(device.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  CHECK(cuMemAlloc(&x, 4) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  CHECK(cuStreamEndCapture(device.stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  OK(cuStreamBeginCapture(device.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  CHECK(cuStreamWaitEvent(device.stream, before, 0) == CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  CHECK(cuStreamEndCapture(device.stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  OK(cuMemAlloc(&x, 4));
}

void memory_of_a_capture_lives_as_long_as_its_graph() {
  Device device;
  int64_t before = emu_counter("live_allocations");
  CUdeviceptr x;
  CUgraph graph;
  CUgraphExec executable;
  OK(cuStreamBeginCapture(device.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  OK(cuMemAllocAsync(&x, 4, device.stream));
  OK(launch(device.function("add_one"), 1, 1, 0, device.stream, Span{x, 1}));
  OK(cuMemFreeAsync(x, device.stream));
  OK(cuStreamEndCapture(device.stream, &graph));
  OK(cuGraphInstantiateWithFlags(&executable, graph, 0));
  OK(cuGraphLaunch(executable, device.stream));
  OK(cuGraphLaunch(executable, device.stream));
  CHECK(emu_counter("live_allocations") == before + 1);
  OK(cuGraphDestroy(graph));
  OK(cuGraphExecDestroy(executable));
  CHECK(emu_counter("live_allocations") == before);
}

// --- Memory ---

void memory_is_not_a_number_until_it_is_written() {
  Device device;
  CUdeviceptr x = allocate(64);
  CHECK(std::isnan(download(x, 16)[0]) && std::isnan(download(x, 16)[15]));
}

void memory_has_bounds() {
  Device device;
  CUdeviceptr x = allocate(16);
  float values[5] = {};
  CHECK(cuMemcpyHtoD(x, values, 20) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuMemcpyDtoH(values, x + 4, 16) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuMemsetD8(x, 0, 17) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuMemFree(x + 4) == CUDA_ERROR_INVALID_VALUE);
  OK(cuMemFree(x));
  CHECK(cuMemFree(x) == CUDA_ERROR_INVALID_VALUE);
}

#if !defined(__SANITIZE_ADDRESS__)
void a_write_outside_of_memory_breaks_the_device() {
  Device device;
  CUmodule module;
  CUfunction function;
  OK(cuModuleLoadData(&module, ".version 9.0 .entry write_behind(.param .u64 a, .param .u32 b) {} "
                               ".entry to_half(.param .u64 a, .param .u64 b) {}"));
  OK(cuModuleGetFunction(&function, module, "write_behind"));
  OK(emu_set("check", "1"));
  CUdeviceptr x = allocate(16);
  int64_t before = emu_counter("overruns");
  CHECK(launch(function, 1, 1, 0, nullptr, x, 4u) == CUDA_ERROR_ILLEGAL_ADDRESS);
  CHECK(emu_counter("overruns") == before + 1);
}
#endif

void memory_that_was_freed_is_noticed() {
  emu_set("streams", "lazy");
  Device device;
  CUdeviceptr x;
  OK(cuMemAllocAsync(&x, 4, device.stream));
  OK(cuMemFreeAsync(x, device.stream));
  OK(launch(device.function("add_one"), 1, 1, 0, device.stream, Span{x, 1}));
  CHECK(cuStreamSynchronize(device.stream) == CUDA_ERROR_ILLEGAL_ADDRESS);
}

void memory_comes_to_an_end() {
  Device device;
  emu_set("memory_mib", "1");
  CUdeviceptr x, y;
  OK(cuMemAlloc(&x, 1 << 20));
  CHECK(cuMemAlloc(&y, 1) == CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemFree(x));
  OK(cuMemAlloc(&y, 1));
  size_t free, total;
  OK(cuMemGetInfo(&free, &total));
  CHECK(total == 1 << 20 && free == total - 1);
}

void a_pool_keeps_what_was_freed_up_to_its_threshold() {
  Device device;
  emu_set("memory_mib", "4");
  CUmemoryPool pool;
  OK(cuDeviceGetDefaultMemPool(&pool, 0));
  auto ask = [&](CUmemPool_attribute attribute) {
    uint64_t bytes = 0;
    OK(cuMemPoolGetAttribute(pool, attribute, &bytes));
    return bytes;
  };
  for (uint64_t threshold : {uint64_t(0), UINT64_MAX}) {
    OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
    CUdeviceptr x, y;
    OK(cuMemAllocAsync(&x, 3 << 20, device.stream));
    CHECK(ask(CU_MEMPOOL_ATTR_USED_MEM_CURRENT) == 3 << 20);
    OK(cuMemFreeAsync(x, device.stream));
    OK(cuStreamSynchronize(device.stream));
    uint64_t kept = std::min<uint64_t>(threshold, 3 << 20);
    CHECK(ask(CU_MEMPOOL_ATTR_USED_MEM_CURRENT) == 0);
    CHECK(ask(CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) == kept);
    size_t free, total;
    OK(cuMemGetInfo(&free, &total));
    CHECK(free + kept == total);
    // Until the pool is trimmed, the memory that it keeps can be allocated only from the pool.
    OK(cuMemAllocAsync(&x, 3 << 20, device.stream));
    OK(cuMemFreeAsync(x, device.stream));
    CHECK(cuMemAlloc(&y, 2 << 20) == (kept > 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS));
    if (kept > 0) OK(cuMemPoolTrimTo(pool, 0));
    if (kept > 0) OK(cuMemAlloc(&y, 2 << 20));
    OK(cuMemFree(y));
  }
}

void nothing_is_left_after_a_thousand_batches() {
  Device device;
  Pinned in(64);
  CUfunction add_one = device.function("add_one");
  int64_t allocations = emu_counter("live_allocations"), bytes = emu_counter("live_bytes");
  int64_t launches = emu_counter("launches"), copied = emu_counter("h2d_bytes");
  for (int i = 0; i < 1000; i++) {
    CUdeviceptr x;
    OK(cuMemAllocAsync(&x, 256, device.stream));
    OK(cuMemcpyHtoDAsync(x, in.data, 256, device.stream));
    OK(launch(add_one, 1, 64, 0, device.stream, Span{x, 64}));
    OK(cuMemFreeAsync(x, device.stream));
  }
  CHECK(emu_counter("live_allocations") == allocations && emu_counter("live_bytes") == bytes);
  CHECK(emu_counter("launches") == launches + 1000 && emu_counter("h2d_bytes") == copied + 256000);
}

// --- Faults ---

void a_fault_breaks_its_device_until_it_is_reset() {
  emu_set("devices", "2");
  {
    Device other(1), device(0);
    CUdeviceptr x = upload(std::vector<float>{0});
    CUfunction add_one = device.function("add_one");
    emu_set("fault", "launch:3:700@0");
    OK(launch(add_one, 1, 1, 0, device.stream, Span{x, 1}));
    OK(launch(add_one, 1, 1, 0, device.stream, Span{x, 1}));
    CHECK(launch(add_one, 1, 1, 0, device.stream, Span{x, 1}) == CUDA_ERROR_ILLEGAL_ADDRESS);
    CHECK(cuStreamSynchronize(device.stream) == CUDA_ERROR_ILLEGAL_ADDRESS);
    CHECK(cuMemAlloc(&x, 4) == CUDA_ERROR_ILLEGAL_ADDRESS);

    OK(cuCtxSetCurrent(other.context));
    CUdeviceptr y = upload(std::vector<float>{0});
    emu_set("fault", "launch:1:700@0");
    OK(launch(other.function("add_one"), 1, 1, 0, other.stream, Span{y, 1}));
    CHECK(download(y, 1)[0] == 1);
    emu_set("fault", "");
    CHECK(launch(add_one, 1, 1, 0, other.stream, Span{y, 1}) == CUDA_ERROR_INVALID_HANDLE);

    OK(cuDevicePrimaryCtxReset(0));
    device.prepare();
    x = upload(std::vector<float>{0});
    OK(launch(device.function("add_one"), 1, 1, 0, device.stream, Span{x, 1}));
    CHECK(launch(add_one, 1, 1, 0, device.stream, Span{x, 1}) == CUDA_ERROR_INVALID_HANDLE);
  }
  emu_set("devices", "1");
}

void a_fault_comes_when_the_kernel_runs() {
  for (const char* mode : {"lazy", "threads"}) {
    emu_set("streams", mode);
    Device device;
    CUevent event;
    OK(cuEventCreate(&event, 0));
    CUdeviceptr x = upload(std::vector<float>{0});
    emu_set("fault", "launch:1:214");
    OK(launch(device.function("add_one"), 1, 1, 0, device.stream, Span{x, 1}));
    CUresult recorded = cuEventRecord(event, device.stream);
    CHECK(recorded == CUDA_SUCCESS || recorded == CUDA_ERROR_ECC_UNCORRECTABLE);
    CHECK(cuStreamSynchronize(device.stream) == CUDA_ERROR_ECC_UNCORRECTABLE);
  }
}

void nothing_runs_on_a_broken_device() {
  emu_set("streams", "lazy");
  Device device;
  CUdeviceptr x = upload(std::vector<float>{0}), y;
  emu_set("fault", "launch:2:700,alloc:1:719");
  int64_t before = emu_counter("kernels");
  for (int i = 0; i < 3; i++) OK(launch(device.function("add_one"), 1, 1, 0, device.stream, Span{x, 1}));
  CHECK(cuStreamSynchronize(device.stream) == CUDA_ERROR_ILLEGAL_ADDRESS);
  CHECK(emu_counter("kernels") == before + 1);
  OK(cuDevicePrimaryCtxReset(0));
  CHECK(cuMemAlloc(&y, 4) == CUDA_ERROR_LAUNCH_FAILED);
  CHECK(cuMemAlloc(&y, 4) == CUDA_ERROR_LAUNCH_FAILED);
}

void an_allocation_can_fail_once() {
  Device device;
  CUdeviceptr x;
  emu_set("fault", "alloc:2:2");
  OK(cuMemAlloc(&x, 4));
  CHECK(cuMemAlloc(&x, 4) == CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemAlloc(&x, 4));
}

void a_lost_device_stays_lost() {
  Device device;
  CUdeviceptr x;
  emu_set("fault", "any:1:46:*");
  CHECK(cuMemAlloc(&x, 4) == CUDA_ERROR_DEVICE_UNAVAILABLE);
  OK(cuDevicePrimaryCtxReset(0));
  CHECK(cuMemAlloc(&x, 4) == CUDA_ERROR_DEVICE_UNAVAILABLE);
}

void a_launch_that_never_ends_holds_up_what_comes_behind_it() {
  for (const char* mode : {"now", "lazy", "threads"}) {
    emu_set("streams", mode);
    Device device;
    CUstream other;
    CUevent first, last;
    OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    OK(cuEventCreate(&first, 0));
    OK(cuEventCreate(&last, 0));
    CUdeviceptr x = upload(std::vector<float>{0}), y = upload(std::vector<float>{0});
    CUfunction add_one = device.function("add_one");
    CHECK(emu_set("fault", "alloc:1:hang") != 0);
    emu_set("fault", "launch:2:hang");
    for (int i = 0; i < 3; i++) OK(launch(add_one, 1, 1, 0, device.stream, Span{x, 1}));
    OK(cuEventRecord(first, device.stream));
    OK(cuStreamWaitEvent(other, first, 0));
    OK(launch(add_one, 1, 1, 0, other, Span{y, 1}));
    OK(cuEventRecord(last, other));
    for (int i = 0; i < 20; i++) {
      CHECK(cuEventQuery(first) == CUDA_ERROR_NOT_READY && cuEventQuery(last) == CUDA_ERROR_NOT_READY);
      CHECK(cuStreamQuery(device.stream) == CUDA_ERROR_NOT_READY);
    }
    std::thread waiter([&] {
      OK(cuCtxSetCurrent(device.context));
      OK(cuEventSynchronize(last));
    });
    emu_set("fault", "");
    waiter.join();
    // All launches have run except the one that hung.
    CHECK(download(x, 1)[0] == 2 && download(y, 1)[0] == 1);
  }
}

void without_devices_the_driver_says_so() {
  emu_set("devices", "0");
  CHECK(cuInit(0) == CUDA_ERROR_NO_DEVICE);
  emu_set("devices", "1");
}

void what_is_not_emulated_refuses() {
  Device device;
  int64_t before = emu_counter("complaints");
  CUarray array;
  CUDA_ARRAY_DESCRIPTOR descriptor{};
  CHECK(cuArrayCreate(&array, &descriptor) == CUDA_ERROR_NOT_SUPPORTED);
  CHECK(emu_counter("complaints") == before + 1);
}

void a_complaint_ends_the_process_where_that_is_asked_for() {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    emu_set("complaints", "abort");
    CUarray array;
    CUDA_ARRAY_DESCRIPTOR descriptor{};
    cuArrayCreate(&array, &descriptor);
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

// --- cuBLAS ---

struct Product {
  int a_op, b_op, m, n, k, lda, ldb, ldc, batch;
};

float at(const std::vector<float>& x, int ld, int transposed, int row, int column) {
  return transposed ? x[size_t(row) * ld + column] : x[size_t(column) * ld + row];
}

void check_product(const Product& p, bool half) {
  Device device;
  void* handle;
  CHECK(cublasCreate_v2(&handle) == 0);
  CHECK(cublasSetStream_v2(handle, device.stream) == 0);
  size_t a_size = size_t(p.lda) * (p.a_op ? p.m : p.k), b_size = size_t(p.ldb) * (p.b_op ? p.k : p.n);
  size_t c_size = size_t(p.ldc) * p.n;
  auto a = numbers(a_size * p.batch, 2), b = numbers(b_size * p.batch, 3), c = numbers(c_size * p.batch, 4);
  int type = half ? 2 : 0;
  CUdeviceptr da = half ? upload(halves(a)) : upload(a), db = half ? upload(halves(b)) : upload(b), dc = upload(c);
  float alpha = 0.5f, beta = 2;
  CHECK(cublasGemmStridedBatchedEx(handle, p.a_op, p.b_op, p.m, p.n, p.k, &alpha, (void*)da, type, p.lda,
                                   (long long)a_size, (void*)db, type, p.ldb, (long long)b_size, &beta, (void*)dc, 0,
                                   p.ldc, (long long)c_size, p.batch, 68, -1) == 0);
  auto got = download(dc, c_size * p.batch);
  float worst = 0;
  for (int q = 0; q < p.batch; q++) {
    std::vector<float> aq(a.begin() + q * a_size, a.begin() + (q + 1) * a_size);
    std::vector<float> bq(b.begin() + q * b_size, b.begin() + (q + 1) * b_size);
    for (int column = 0; column < p.n; column++)
      for (int row = 0; row < p.m; row++) {
        double sum = 0;
        for (int i = 0; i < p.k; i++) sum += double(at(aq, p.lda, p.a_op, row, i)) * at(bq, p.ldb, p.b_op, i, column);
        size_t place = q * c_size + size_t(column) * p.ldc + row;
        worst = std::max(worst, std::abs(float(alpha * sum + beta * c[place]) - got[place]));
      }
  }
  CHECK(worst < 1e-4);
  CHECK(cublasDestroy_v2(handle) == 0);
}

void products_equal_triple_loops() {
  for (bool half : {false, true}) {
    check_product({0, 0, 37, 19, 23, 40, 23, 37, 1}, half);
    check_product({1, 0, 37, 19, 23, 30, 23, 37, 1}, half);
    check_product({0, 1, 7, 65, 23, 7, 65, 9, 3}, half);
    check_product({1, 1, 33, 64, 129, 129, 64, 33, 2}, half);
  }
}

// The bits of an operand behind the tenth count only if the compute type forbids rounding to TF32.
void factors_are_rounded_to_ten_bits_where_they_may_be() {
  Device device;
  void* handle;
  CHECK(cublasCreate_v2(&handle) == 0 && cublasSetStream_v2(handle, device.stream) == 0);
  const float fine = 1.0f / 4096, coarse = 1.0f / 1024;
  CUdeviceptr a = upload(std::vector<float>{1 + fine, 1 + coarse}), b = upload(std::vector<float>{1, 1});
  CUdeviceptr c = allocate(sizeof(float));
  float one = 1, zero = 0;
  for (int compute : {68, 77}) {
    CHECK(cublasGemmStridedBatchedEx(handle, 0, 0, 1, 1, 2, &one, (void*)a, 0, 1, 2, (void*)b, 0, 2, 2, &zero, (void*)c,
                                     0, 1, 1, 1, compute, -1) == 0);
    CHECK(download(c, 1)[0] == 2 + coarse + (compute == 68 ? fine : 0));
  }
  CHECK(cublasDestroy_v2(handle) == 0);
}

// --- cuDNN ---

struct Layer {
  int n, c, h, w, k, r, s, pad, stride, dilation, groups, format;
  bool half, relu;
};

// Runs the layer, and compares it with seven loops over the definition.
void check_layer(const Layer& l) {
  Device device;
  void *handle, *x, *w, *y, *bias, *convolution, *activation;
  CHECK(cudnnCreate(&handle) == 0 && cudnnSetStream(handle, device.stream) == 0);
  cudnnCreateTensorDescriptor(&x), cudnnCreateTensorDescriptor(&y), cudnnCreateTensorDescriptor(&bias);
  cudnnCreateFilterDescriptor(&w), cudnnCreateConvolutionDescriptor(&convolution);
  cudnnCreateActivationDescriptor(&activation);
  int type = l.half ? 2 : 0, cg = l.c / l.groups, kg = l.k / l.groups, n, k, oh, ow;
  CHECK(cudnnSetTensor4dDescriptor(x, l.format, type, l.n, l.c, l.h, l.w) == 0);
  CHECK(cudnnSetFilter4dDescriptor(w, type, l.format, l.k, cg, l.r, l.s) == 0);
  CHECK(cudnnSetConvolution2dDescriptor(convolution, l.pad, l.pad, l.stride, l.stride, l.dilation, l.dilation, 1,
                                        0) == 0);
  CHECK(cudnnSetConvolutionGroupCount(convolution, l.groups) == 0);
  CHECK(cudnnGetConvolution2dForwardOutputDim(convolution, x, w, &n, &k, &oh, &ow) == 0);
  CHECK(cudnnSetTensor4dDescriptor(y, l.format, type, n, k, oh, ow) == 0);
  CHECK(cudnnSetTensor4dDescriptor(bias, l.format, type, 1, k, 1, 1) == 0);
  CHECK(cudnnSetActivationDescriptor(activation, l.relu ? 1 : 5, 1, 0) == 0);

  auto xs = numbers(size_t(l.n) * l.c * l.h * l.w, 5), ws = numbers(size_t(l.k) * cg * l.r * l.s, 6);
  auto bs = numbers(size_t(l.k), 7);
  auto send = [&](const std::vector<float>& v) { return l.half ? upload(halves(v)) : upload(v); };
  CUdeviceptr dx = send(xs), dw = send(ws), db = send(bs);
  size_t length = size_t(n) * k * oh * ow, bytes = 0;
  CUdeviceptr dy = allocate(length * (l.half ? 2 : 4));
  CHECK(cudnnGetConvolutionForwardWorkspaceSize(handle, x, w, convolution, y, 1, &bytes) == 0);
  CUdeviceptr space = bytes > 0 ? allocate(bytes) : 0;
  float one = 1, zero = 0;
  auto run = [&](size_t space_bytes) {
    return cudnnConvolutionBiasActivationForward(handle, &one, x, (void*)dx, w, (void*)dw, convolution, 1, (void*)space,
                                                 space_bytes, &zero, y, (void*)dy, bias, (void*)db, activation, y,
                                                 (void*)dy);
  };
  if (bytes > 0) CHECK(run(bytes - 1) != 0);
  CHECK(run(bytes) == 0);
  std::vector<float> got;
  if (l.half) for (_Float16 v : download<_Float16>(dy, length)) got.push_back(float(v));
  else got = download(dy, length);

  auto place = [&](int i, int channel, int row, int column, int channels, int rows, int columns) {
    return l.format == 0 ? ((size_t(i) * channels + channel) * rows + row) * columns + column
                         : ((size_t(i) * rows + row) * columns + column) * channels + channel;
  };
  double worst = 0;
  for (int i = 0; i < n; i++)
    for (int f = 0; f < k; f++)
      for (int row = 0; row < oh; row++)
        for (int column = 0; column < ow; column++) {
          double sum = bs[size_t(f)];
          for (int c = 0; c < cg; c++)
            for (int r = 0; r < l.r; r++)
              for (int s = 0; s < l.s; s++) {
                int ih = row * l.stride - l.pad + r * l.dilation, iw = column * l.stride - l.pad + s * l.dilation;
                if (ih < 0 || ih >= l.h || iw < 0 || iw >= l.w) continue;
                sum += double(xs[place(i, f / kg * cg + c, ih, iw, l.c, l.h, l.w)]) *
                       ws[place(f, c, r, s, cg, l.r, l.s)];
              }
          if (l.relu && sum < 0) sum = 0;
          worst = std::max(worst, std::abs(sum - got[place(i, f, row, column, k, oh, ow)]) / (1 + std::abs(sum)));
        }
  CHECK(worst < (l.half ? 1e-3 : 1e-5));
  for (void* tensor : {x, y, bias}) cudnnDestroyTensorDescriptor(tensor);
  cudnnDestroyFilterDescriptor(w), cudnnDestroyConvolutionDescriptor(convolution);
  cudnnDestroyActivationDescriptor(activation), cudnnDestroy(handle);
}

void convolutions_equal_their_definition() {
  //           n  c   h   w   k  r  s pad st di gr format half relu
  check_layer({2, 3, 11, 13, 8, 3, 3, 1, 2, 1, 1, 0, false, true});
  check_layer({2, 3, 11, 13, 8, 3, 3, 1, 2, 1, 1, 1, true, true});
  check_layer({1, 16, 9, 9, 16, 3, 3, 1, 1, 1, 16, 1, true, false});
  check_layer({3, 16, 7, 9, 16, 3, 3, 1, 2, 1, 16, 0, false, false});
  check_layer({2, 12, 10, 8, 8, 5, 3, 2, 1, 2, 4, 1, false, true});
  check_layer({2, 24, 6, 6, 40, 1, 1, 0, 1, 1, 1, 1, true, false});
  check_layer({1, 8, 7, 7, 64, 7, 7, 0, 1, 1, 1, 0, true, false});
}

}  // namespace

int main() {
  const std::pair<const char*, void (*)()> tests[] = {
#define TEST(name) {#name, name}
      TEST(threads_of_a_block_meet_at_barriers),
      TEST(a_forgotten_barrier_gives_wrong_numbers),
      TEST(dynamic_shared_memory_has_the_size_that_was_asked_for),
      TEST(lanes_of_a_warp_exchange_values),
      TEST(lanes_that_returned_are_not_waited_for),
      TEST(threads_that_never_meet_are_a_failed_launch),
      TEST(blocks_on_several_cores_add_up),
      TEST(a_launch_has_limits),
      TEST(a_module_has_the_kernels_of_its_text),
      TEST(lazy_work_waits_until_somebody_waits_for_it),
      TEST(a_forgotten_wait_shows_in_lazy_streams),
      TEST(streams_on_threads_wait_for_each_other),
      TEST(asking_an_event_again_and_again_comes_to_an_end),
      TEST(an_event_is_the_mark_it_had_when_it_was_waited_for),
      TEST(the_time_between_two_events_is_measured),
      TEST(the_trace_tells_what_was_enqueued_and_what_ran),
      TEST(a_graph_does_again_what_was_captured),
      TEST(a_capture_refuses_what_it_cannot_hold),
      TEST(memory_of_a_capture_lives_as_long_as_its_graph),
      TEST(memory_is_not_a_number_until_it_is_written),
      TEST(memory_has_bounds),
#if !defined(__SANITIZE_ADDRESS__)
      TEST(a_write_outside_of_memory_breaks_the_device),
#endif
      TEST(memory_that_was_freed_is_noticed),
      TEST(memory_comes_to_an_end),
      TEST(a_pool_keeps_what_was_freed_up_to_its_threshold),
      TEST(nothing_is_left_after_a_thousand_batches),
      TEST(a_fault_breaks_its_device_until_it_is_reset),
      TEST(a_fault_comes_when_the_kernel_runs),
      TEST(nothing_runs_on_a_broken_device),
      TEST(an_allocation_can_fail_once),
      TEST(a_lost_device_stays_lost),
      TEST(a_launch_that_never_ends_holds_up_what_comes_behind_it),
      TEST(without_devices_the_driver_says_so),
      TEST(what_is_not_emulated_refuses),
      TEST(a_complaint_ends_the_process_where_that_is_asked_for),
      TEST(products_equal_triple_loops),
      TEST(factors_are_rounded_to_ten_bits_where_they_may_be),
      TEST(convolutions_equal_their_definition),
#undef TEST
  };
  int failed = 0;
  for (auto& [name, test] : tests) {
    int before = failures;
    test();
    failed += failures > before;
    printf("%s %s\n", failures > before ? "FAILED" : "ok", name);
    fflush(stdout);
  }
  printf("%zu tests, %d failed\n", sizeof tests / sizeof *tests, failed);
  return failed > 0;
}

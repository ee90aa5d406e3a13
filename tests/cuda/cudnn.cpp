// The part of cuDNN that convolutional networks use, with the descriptors of version 7: forward
// convolution with groups, strides, pads and dilations, in NCHW and NHWC, f32 and f16, with sums in
// f32. Operands are rounded to TF32 wherever the library may do so.
//
// A layout is represented by its strides. A convolution is one matrix product per image and group,
// over patches of the input. Calls that the library would refuse are refused. The workspace is
// overwritten, so that a workspace which overlaps other memory is noticed.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "emu/gemm.h"
#include "emu/library.h"
#include "emu/pool.h"

#define EMU_API extern "C" __attribute__((visibility("default")))

namespace {

// Values of cudnnStatus_t (9.x), cudnnDataType_t, cudnnTensorFormat_t and so on.
enum Status { success = 0, not_initialised = 1001, bad_param = 2000, not_supported = 3000, execution_failed = 5000 };
enum { data_f32 = 0, data_f16 = 2 };
enum { nchw = 0, nhwc = 1 };
enum { activation_relu = 1, activation_clipped_relu = 3, activation_identity = 5 };
enum { algorithm_implicit_precomputed_gemm = 1, algorithms_end = 8 };
enum { mode_convolution = 0, mode_cross_correlation = 1 };
enum { math_plain = 3 };

using Sizes = std::array<size_t, 4>;  // n c h w; for a filter: k c h w

struct Tensor {
  emu::Type type = emu::Type::f32;
  Sizes size{}, stride{};

  size_t at(size_t n, size_t c, size_t h, size_t w) const {
    return n * stride[0] + c * stride[1] + h * stride[2] + w * stride[3];
  }
  size_t bytes() const { return (at(size[0] - 1, size[1] - 1, size[2] - 1, size[3] - 1) + 1) * emu::size_of(type); }
  bool fits_in(const void* data) const { return emu::bytes_at(CUdeviceptr(data)) >= bytes(); }
};

struct Convolution {
  std::array<size_t, 2> pad{}, stride{1, 1}, dilation{1, 1};
  size_t groups = 1;
  bool flipped = false;
  int compute = data_f32, math = 0;
};

struct Activation {
  int mode = activation_identity;
  bool propagates_nan = false;
  double limit = 0;
};

struct Handle {
  CUstream stream = nullptr;
};

bool set_type(Tensor& tensor, int type) {
  if (type != data_f32 && type != data_f16) return false;
  tensor.type = type == data_f32 ? emu::Type::f32 : emu::Type::f16;
  return true;
}

Sizes packed_strides(const Sizes& s, int format) {
  if (format == nchw) return {s[1] * s[2] * s[3], s[2] * s[3], s[3], 1};
  return {s[1] * s[2] * s[3], 1, s[3] * s[1], s[1]};
}

Status set_packed(Tensor& tensor, int format, int type, const Sizes& size) {
  if (!set_type(tensor, type) || (format != nchw && format != nhwc)) return not_supported;
  if (std::count(size.begin(), size.end(), 0) > 0) return bad_param;
  tensor.size = size;
  tensor.stride = packed_strides(size, format);
  return success;
}

// --- Convolution ---

struct ConvolutionTask {
  Tensor x, w, y;
  Convolution convolution;
  const char *x_data, *w_data;
  char* y_data;
  float alpha, beta;
  // y = act(alpha conv(x, w) + beta z + bias), where z is y unless the caller gives another tensor.
  Tensor z, bias;
  const char *z_data, *bias_data;
  Activation activation;
  char* workspace;
  size_t workspace_bytes;

  size_t channels_per_group() const { return w.size[1]; }
  size_t filters_per_group() const { return w.size[0] / convolution.groups; }
  size_t taps() const { return w.size[1] * w.size[2] * w.size[3]; }
  size_t pixels() const { return y.size[2] * y.size[3]; }
};

size_t output_size(size_t in, size_t filter, size_t pad, size_t stride, size_t dilation) {
  size_t extent = (filter - 1) * dilation + 1;
  return in + 2 * pad < extent ? 0 : (in + 2 * pad - extent) / stride + 1;
}

Sizes output_sizes(const Convolution& c, const Tensor& x, const Tensor& w) {
  return {x.size[0], w.size[0], output_size(x.size[2], w.size[2], c.pad[0], c.stride[0], c.dilation[0]),
          output_size(x.size[3], w.size[3], c.pad[1], c.stride[1], c.dilation[1])};
}

Status check_shapes(const Convolution& c, const Tensor& x, const Tensor& w, const Tensor& y) {
  if (c.compute != data_f32 || x.type != w.type) return not_supported;
  if (x.size[1] != w.size[1] * c.groups || w.size[0] % c.groups != 0) return bad_param;
  return output_sizes(c, x, w) == y.size ? success : bad_param;
}

// Returns as many bytes as a real algorithm needs for an unrolled image; none for a filter of one
// tap.
size_t workspace_bytes(const Tensor& w, const Tensor& y, int algorithm) {
  bool unrolled = algorithm != 0 && w.size[2] * w.size[3] > 1;
  return unrolled ? w.size[1] * w.size[2] * w.size[3] * y.size[2] * y.size[3] * emu::size_of(y.type) : 0;
}

// Returns the filters of a group as a matrix: one row per filter, its taps in the order channel,
// row, column.
std::vector<float> filter_matrix(const ConvolutionTask& t, size_t group) {
  std::vector<float> matrix;
  matrix.reserve(t.filters_per_group() * t.taps());
  for (size_t k = 0; k < t.filters_per_group(); k++)
    for (size_t c = 0; c < t.w.size[1]; c++)
      for (size_t r = 0; r < t.w.size[2]; r++)
        for (size_t s = 0; s < t.w.size[3]; s++) {
          size_t row = t.convolution.flipped ? t.w.size[2] - 1 - r : r;
          size_t column = t.convolution.flipped ? t.w.size[3] - 1 - s : s;
          matrix.push_back(emu::load(t.w_data, t.w.type, t.w.at(group * t.filters_per_group() + k, c, row, column)));
        }
  return matrix;
}

// Writes one row of the patches matrix: the input elements that tap (r, s) of a channel reads for
// each output pixel.
void unroll_tap(const ConvolutionTask& t, size_t image, size_t channel, size_t r, size_t s, float* to) {
  const Convolution& c = t.convolution;
  for (size_t oh = 0; oh < t.y.size[2]; oh++) {
    // Rows above the picture wrap around, and are then greater than its height.
    size_t h = oh * c.stride[0] + r * c.dilation[0] - c.pad[0];
    for (size_t ow = 0; ow < t.y.size[3]; ow++) {
      size_t w = ow * c.stride[1] + s * c.dilation[1] - c.pad[1];
      bool inside = h < t.x.size[2] && w < t.x.size[3];
      *to++ = inside ? emu::load(t.x_data, t.x.type, t.x.at(image, channel, h, w)) : 0.0f;
    }
  }
}

std::vector<float> patches(const ConvolutionTask& t, size_t image, size_t group) {
  std::vector<float> matrix(t.taps() * t.pixels());
  float* row = matrix.data();
  for (size_t c = 0; c < t.channels_per_group(); c++)
    for (size_t r = 0; r < t.w.size[2]; r++)
      for (size_t s = 0; s < t.w.size[3]; s++, row += t.pixels())
        unroll_tap(t, image, group * t.channels_per_group() + c, r, s, row);
  return matrix;
}

float activate(const Activation& activation, float x) {
  if (activation.mode == activation_identity || (activation.propagates_nan && std::isnan(x))) return x;
  float rectified = x > 0 ? x : 0;
  return activation.mode == activation_clipped_relu ? std::min(rectified, float(activation.limit)) : rectified;
}

void write_channel(const ConvolutionTask& t, size_t image, size_t channel, const float* sums) {
  float bias = t.bias_data == nullptr ? 0 : emu::load(t.bias_data, t.bias.type, channel * t.bias.stride[1]);
  for (size_t h = 0; h < t.y.size[2]; h++) {
    for (size_t w = 0; w < t.y.size[3]; w++) {
      // With beta 0 the old value must not count, even if it is NaN.
      float old = t.beta == 0 ? 0 : t.beta * emu::load(t.z_data, t.z.type, t.z.at(image, channel, h, w));
      float value = activate(t.activation, t.alpha * *sums++ + old + bias);
      emu::store(t.y_data, t.y.type, t.y.at(image, channel, h, w), value);
    }
  }
}

void convolve_group(const ConvolutionTask& t, size_t image, size_t group) {
  const std::vector<float> filters = filter_matrix(t, group), columns = patches(t, image, group);
  std::vector<float> sums(t.filters_per_group() * t.pixels());
  emu::multiply({filters.data(), emu::Type::f32, t.taps(), 1}, {columns.data(), emu::Type::f32, t.pixels(), 1},
                t.filters_per_group(), t.taps(), t.pixels(), sums.data(), t.pixels(), t.convolution.groups == 1);
  for (size_t k = 0; k < t.filters_per_group(); k++)
    write_channel(t, image, group * t.filters_per_group() + k, &sums[k * t.pixels()]);
}

void convolve(const ConvolutionTask& t) {
  if (t.workspace_bytes > 0) memset(t.workspace, 0xff, t.workspace_bytes);
  size_t groups = t.convolution.groups;
  auto one = [&](size_t i) { convolve_group(t, i / groups, i % groups); };
  if (groups > 1) return emu::parallel(t.x.size[0] * groups, one);
  // With one group, the product itself uses all cores.
  for (size_t i = 0; i < t.x.size[0]; i++) one(i);
}

std::string name_of(const ConvolutionTask& t) {
  std::string name;
  for (size_t size : t.x.size) name += std::to_string(size) + "x";
  return name + std::to_string(t.w.size[0]) + "x" + std::to_string(t.w.size[2]) + "x" + std::to_string(t.w.size[3]);
}

// Returns the type that an operand is rounded to when it is read.
emu::Type operand_type(emu::Type type, const Convolution& c) {
  return type == emu::Type::f32 && c.math != math_plain ? emu::Type::tf32 : type;
}

Status enqueue(const Handle& handle, ConvolutionTask t, int algorithm) {
  if (Status status = check_shapes(t.convolution, t.x, t.w, t.y)) return status;
  if (algorithm < 0 || algorithm >= algorithms_end) return bad_param;
  if (!t.x.fits_in(t.x_data) || !t.w.fits_in(t.w_data) || !t.y.fits_in(t.y_data)) return bad_param;
  size_t needed = workspace_bytes(t.w, t.y, algorithm);
  if (t.workspace_bytes < needed) return bad_param;
  if (needed > 0 && emu::bytes_at(CUdeviceptr(t.workspace)) < t.workspace_bytes) return bad_param;
  t.x.type = operand_type(t.x.type, t.convolution), t.w.type = operand_type(t.w.type, t.convolution);
  return emu::submit(handle.stream, "conv", name_of(t), [t] { convolve(t); }) == CUDA_SUCCESS ? success
                                                                                                : execution_failed;
}

// Has the memory layout of cudnnConvolutionFwdAlgoPerf_t.
struct Performance {
  int algorithm, status;
  float milliseconds;
  size_t bytes;
  int determinism, math, reserved[3];
};

Status describe_algorithm(const Convolution& c, const Tensor& x, const Tensor& w, const Tensor& y, int asked,
                          int* found, Performance* performance) {
  if (Status status = check_shapes(c, x, w, y)) return status;
  if (asked < 1) return bad_param;
  int algorithm = algorithm_implicit_precomputed_gemm;
  *performance = {algorithm, success, 1.0f, workspace_bytes(w, y, algorithm), 1, c.math, {}};
  *found = 1;
  return success;
}

// Returns true if a planned fault says that cuDNN supports no algorithm.
bool algorithm_is_refused() {
  CUdevice device = -1;
  cuCtxGetDevice(&device);
  return emu::planned_fault("algorithm", device) != CUDA_SUCCESS;
}

template <class T>
T& as(void* object) {
  return *static_cast<T*>(object);
}

Sizes sizes(int a, int b, int c, int d) { return {size_t(a), size_t(b), size_t(c), size_t(d)}; }

// Pads three dimensions to four with a last size of 1.
Status pad_to_four(int count, const int* given, std::array<int, 4>& all) {
  if (count < 3 || count > 4) return not_supported;
  all = {1, 1, 1, 1};
  std::copy_n(given, count, all.begin());
  return success;
}

}  // namespace

// --- Handles and descriptors ---

EMU_API size_t cudnnGetVersion() { return 91400; }
EMU_API size_t cudnnGetCudartVersion() { return 13000; }
EMU_API Status cudnnCnnVersionCheck() { return success; }
EMU_API Status cudnnOpsVersionCheck() { return success; }

EMU_API const char* cudnnGetErrorString(Status status) {
  switch (status) {
    case success: return "CUDNN_STATUS_SUCCESS";
    case not_initialised: return "CUDNN_STATUS_NOT_INITIALIZED";
    case bad_param: return "CUDNN_STATUS_BAD_PARAM";
    case not_supported: return "CUDNN_STATUS_NOT_SUPPORTED";
    case execution_failed: return "CUDNN_STATUS_EXECUTION_FAILED";
  }
  return "CUDNN_STATUS_UNKNOWN";
}

EMU_API Status cudnnCreate(void** handle) {
  CUcontext context = nullptr;
  cuCtxGetCurrent(&context);
  if (context == nullptr) return not_initialised;
  *handle = new Handle;
  return success;
}
EMU_API Status cudnnDestroy(void* handle) { return delete &as<Handle>(handle), success; }
EMU_API Status cudnnSetStream(void* handle, CUstream stream) { return as<Handle>(handle).stream = stream, success; }
EMU_API Status cudnnGetStream(void* handle, CUstream* stream) { return *stream = as<Handle>(handle).stream, success; }

EMU_API Status cudnnCreateTensorDescriptor(void** descriptor) { return *descriptor = new Tensor, success; }
EMU_API Status cudnnDestroyTensorDescriptor(void* tensor) { return delete &as<Tensor>(tensor), success; }
EMU_API Status cudnnCreateFilterDescriptor(void** descriptor) { return *descriptor = new Tensor, success; }
EMU_API Status cudnnDestroyFilterDescriptor(void* filter) { return delete &as<Tensor>(filter), success; }
EMU_API Status cudnnCreateConvolutionDescriptor(void** descriptor) { return *descriptor = new Convolution, success; }
EMU_API Status cudnnDestroyConvolutionDescriptor(void* descriptor) {
  return delete &as<Convolution>(descriptor), success;
}
EMU_API Status cudnnCreateActivationDescriptor(void** descriptor) { return *descriptor = new Activation, success; }
EMU_API Status cudnnDestroyActivationDescriptor(void* descriptor) {
  return delete &as<Activation>(descriptor), success;
}

EMU_API Status cudnnSetTensor4dDescriptor(void* tensor, int format, int type, int n, int c, int h, int w) {
  return set_packed(as<Tensor>(tensor), format, type, sizes(n, c, h, w));
}

EMU_API Status cudnnSetTensor4dDescriptorEx(void* tensor, int type, int n, int c, int h, int w, int n_stride,
                                            int c_stride, int h_stride, int w_stride) {
  if (Status status = set_packed(as<Tensor>(tensor), nchw, type, sizes(n, c, h, w))) return status;
  as<Tensor>(tensor).stride = sizes(n_stride, c_stride, h_stride, w_stride);
  return success;
}

EMU_API Status cudnnSetTensorNdDescriptor(void* tensor, int type, int count, const int* given, const int* strides) {
  std::array<int, 4> size, stride;
  if (Status status = pad_to_four(count, given, size)) return status;
  if (Status status = pad_to_four(count, strides, stride)) return status;
  return cudnnSetTensor4dDescriptorEx(tensor, type, size[0], size[1], size[2], size[3], stride[0], stride[1],
                                      stride[2], stride[3]);
}

EMU_API Status cudnnSetTensorNdDescriptorEx(void* tensor, int format, int type, int count, const int* given) {
  std::array<int, 4> size;
  if (Status status = pad_to_four(count, given, size)) return status;
  return cudnnSetTensor4dDescriptor(tensor, format, type, size[0], size[1], size[2], size[3]);
}

EMU_API Status cudnnSetFilter4dDescriptor(void* filter, int type, int format, int k, int c, int h, int w) {
  return set_packed(as<Tensor>(filter), format, type, sizes(k, c, h, w));
}

EMU_API Status cudnnSetFilterNdDescriptor(void* filter, int type, int format, int count, const int* given) {
  std::array<int, 4> size;
  if (Status status = pad_to_four(count, given, size)) return status;
  return cudnnSetFilter4dDescriptor(filter, type, format, size[0], size[1], size[2], size[3]);
}

EMU_API Status cudnnSetConvolution2dDescriptor(void* descriptor, int pad_h, int pad_w, int stride_h, int stride_w,
                                               int dilation_h, int dilation_w, int mode, int compute) {
  bool valid = pad_h >= 0 && pad_w >= 0 && stride_h > 0 && stride_w > 0 && dilation_h > 0 && dilation_w > 0;
  if (!valid) return bad_param;
  Convolution& c = as<Convolution>(descriptor);
  c.pad = {size_t(pad_h), size_t(pad_w)};
  c.stride = {size_t(stride_h), size_t(stride_w)};
  c.dilation = {size_t(dilation_h), size_t(dilation_w)};
  c.flipped = mode == mode_convolution;
  c.compute = compute;
  return success;
}

EMU_API Status cudnnSetConvolutionNdDescriptor(void* descriptor, int count, const int* pad, const int* stride,
                                               const int* dilation, int mode, int compute) {
  if (count != 2) return not_supported;
  return cudnnSetConvolution2dDescriptor(descriptor, pad[0], pad[1], stride[0], stride[1], dilation[0], dilation[1],
                                         mode, compute);
}

EMU_API Status cudnnSetConvolutionGroupCount(void* descriptor, int groups) {
  if (groups < 1) return bad_param;
  return as<Convolution>(descriptor).groups = size_t(groups), success;
}

EMU_API Status cudnnSetConvolutionMathType(void* descriptor, int math) {
  return as<Convolution>(descriptor).math = math, success;
}

EMU_API Status cudnnSetActivationDescriptor(void* descriptor, int mode, int propagates_nan, double limit) {
  bool known = mode == activation_relu || mode == activation_clipped_relu || mode == activation_identity;
  if (!known) return not_supported;
  as<Activation>(descriptor) = {mode, propagates_nan != 0, limit};
  return success;
}

// --- Convolution ---

EMU_API Status cudnnGetConvolution2dForwardOutputDim(void* descriptor, void* x, void* w, int* n, int* c, int* h,
                                                     int* width) {
  Sizes size = output_sizes(as<Convolution>(descriptor), as<Tensor>(x), as<Tensor>(w));
  *n = int(size[0]);
  *c = int(size[1]);
  *h = int(size[2]);
  *width = int(size[3]);
  return success;
}

EMU_API Status cudnnGetConvolutionForwardAlgorithmMaxCount(void*, int* count) { return *count = algorithms_end, success; }

EMU_API Status cudnnGetConvolutionForwardAlgorithm_v7(void*, void* x, void* w, void* descriptor, void* y, int asked,
                                                      int* found, Performance* performance) {
  if (algorithm_is_refused()) return not_supported;
  return describe_algorithm(as<Convolution>(descriptor), as<Tensor>(x), as<Tensor>(w), as<Tensor>(y), asked, found,
                            performance);
}

EMU_API Status cudnnFindConvolutionForwardAlgorithm(void* handle, void* x, void* w, void* descriptor, void* y,
                                                    int asked, int* found, Performance* performance) {
  return cudnnGetConvolutionForwardAlgorithm_v7(handle, x, w, descriptor, y, asked, found, performance);
}

// The search runs algorithms, so it overwrites the output and the workspace.
EMU_API Status cudnnFindConvolutionForwardAlgorithmEx(void* handle, void* x, const void*, void* w, const void*,
                                                      void* descriptor, void* y, void* y_data, int asked, int* found,
                                                      Performance* performance, void* workspace, size_t bytes) {
  if (!as<Tensor>(y).fits_in(y_data)) return bad_param;
  if (bytes > 0 && emu::bytes_at(CUdeviceptr(workspace)) < bytes) return bad_param;
  size_t y_bytes = as<Tensor>(y).bytes();
  emu::submit(as<Handle>(handle).stream, "conv", "search", [=] {
    memset(y_data, 0xff, y_bytes);
    if (bytes > 0) memset(workspace, 0xff, bytes);
  });
  return cudnnGetConvolutionForwardAlgorithm_v7(handle, x, w, descriptor, y, asked, found, performance);
}

EMU_API Status cudnnGetConvolutionForwardWorkspaceSize(void*, void* x, void* w, void* descriptor, void* y,
                                                       int algorithm, size_t* bytes) {
  if (Status status = check_shapes(as<Convolution>(descriptor), as<Tensor>(x), as<Tensor>(w), as<Tensor>(y)))
    return status;
  if (algorithm < 0 || algorithm >= algorithms_end) return bad_param;
  *bytes = workspace_bytes(as<Tensor>(w), as<Tensor>(y), algorithm);
  return success;
}

EMU_API Status cudnnConvolutionForward(void* handle, const float* alpha, void* x, const char* x_data, void* w,
                                       const char* w_data, void* descriptor, int algorithm, char* workspace,
                                       size_t bytes, const float* beta, void* y, char* y_data) {
  ConvolutionTask task{as<Tensor>(x), as<Tensor>(w), as<Tensor>(y), as<Convolution>(descriptor), x_data, w_data,
                       y_data, *alpha, *beta, as<Tensor>(y), {}, y_data, nullptr, {}, workspace, bytes};
  return enqueue(as<Handle>(handle), task, algorithm);
}

EMU_API Status cudnnConvolutionBiasActivationForward(void* handle, const float* alpha, void* x, const char* x_data,
                                                     void* w, const char* w_data, void* descriptor, int algorithm,
                                                     char* workspace, size_t bytes, const float* beta, void* z,
                                                     const char* z_data, void* bias, const char* bias_data,
                                                     void* activation, void* y, char* y_data) {
  ConvolutionTask task{as<Tensor>(x), as<Tensor>(w), as<Tensor>(y), as<Convolution>(descriptor), x_data, w_data,
                       y_data, *alpha, *beta, as<Tensor>(z), as<Tensor>(bias), z_data, bias_data,
                       as<Activation>(activation), workspace, bytes};
  // cuDNN documents that without an activation only this algorithm is supported.
  bool fusable = task.activation.mode != activation_identity || algorithm == algorithm_implicit_precomputed_gemm;
  if (!fusable) return not_supported;
  if (task.bias.size != Sizes{1, task.y.size[1], 1, 1} || !task.bias.fits_in(bias_data)) return bad_param;
  if (*beta != 0 && (task.z.size != task.y.size || !task.z.fits_in(z_data))) return bad_param;
  return enqueue(as<Handle>(handle), task, algorithm);
}

// Computes c = alpha a + beta c, where a is broadcast along the dimensions in which its size is 1.
EMU_API Status cudnnAddTensor(void* handle, const float* alpha, void* a_tensor, const void* a, const float* beta,
                              void* c_tensor, void* c) {
  const Tensor from = as<Tensor>(a_tensor), to = as<Tensor>(c_tensor);
  for (size_t i = 0; i < 4; i++)
    if (from.size[i] != 1 && from.size[i] != to.size[i]) return bad_param;
  if (!from.fits_in(a) || !to.fits_in(c)) return bad_param;
  Tensor repeated = from;
  for (size_t i = 0; i < 4; i++)
    if (from.size[i] == 1) repeated.stride[i] = 0;
  auto work = [=, alpha = *alpha, beta = *beta] {
    for (size_t n = 0; n < to.size[0]; n++)
      for (size_t ch = 0; ch < to.size[1]; ch++)
        for (size_t h = 0; h < to.size[2]; h++)
          for (size_t w = 0; w < to.size[3]; w++) {
            size_t at = to.at(n, ch, h, w);
            float old = beta == 0 ? 0 : beta * emu::load(c, to.type, at);
            emu::store(c, to.type, at, alpha * emu::load(a, from.type, repeated.at(n, ch, h, w)) + old);
          }
  };
  return emu::submit(as<Handle>(handle).stream, "add", "", work) == CUDA_SUCCESS ? success : execution_failed;
}

// The part of cuBLAS that networks use: matrix products in f32 and f16, with sums in f32.
//
// cuBLAS matrices are column-major: element (i, j) of a matrix with leading dimension ld is at
// i + j * ld. The functions behave as the library documents them. Other functions return an error
// (see driver.cpp). Operands are rounded to TF32 wherever the library may do so.
#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "emu/gemm.h"
#include "emu/library.h"

#define EMU_API extern "C" __attribute__((visibility("default")))

namespace {

// Values of cublasStatus_t, cublasOperation_t, cudaDataType_t, cublasComputeType_t.
enum Status { success = 0, not_initialised = 1, invalid_value = 7, execution_failed = 13, not_supported = 15 };
enum { op_none = 0, op_transpose = 1 };
enum { type_f32 = 0, type_f16 = 2 };
// Compute types with sums in f32. Those in f16, f64 or integers are refused: their scalars have
// that type, and their rounding is not emulated.
constexpr int f32_sums[] = {68, 69, 74, 75, 77, 78};
constexpr int f32_sums_of_tf32 = 77;
enum { scalars_on_host = 0 };

struct Handle {
  CUstream stream = nullptr;
  int pointer_mode = scalars_on_host;
  int math_mode = 0;
};

std::optional<emu::Type> type_of(int type) {
  if (type == type_f32) return emu::Type::f32;
  if (type == type_f16) return emu::Type::f16;
  return std::nullopt;
}

// Returns the type that an operand is rounded to when it is read.
emu::Type operand_type(emu::Type type, int compute) {
  return type == emu::Type::f32 && compute == f32_sums_of_tf32 ? emu::Type::tf32 : type;
}

struct Product {
  bool a_transposed, b_transposed;
  size_t m, n, k, lda, ldb, ldc;
  const char *a, *b;
  char* c;
  emu::Type a_type, b_type, c_type;
  // Elements from one matrix of the batch to the next.
  long long a_stride, b_stride, c_stride;
  size_t batch;
};

// Computes one product of the batch. The columns of c are the rows of its transpose, and
// transpose(a b) = transpose(b) transpose(a).
void multiply_one(const Product& p, size_t index, float alpha, float beta) {
  emu::Matrix left{p.b + index * p.b_stride * emu::size_of(p.b_type), p.b_type,
                   p.b_transposed ? 1 : p.ldb, p.b_transposed ? p.ldb : 1};
  emu::Matrix right{p.a + index * p.a_stride * emu::size_of(p.a_type), p.a_type,
                    p.a_transposed ? 1 : p.lda, p.a_transposed ? p.lda : 1};
  std::vector<float> sums(p.m * p.n);
  emu::multiply(left, right, p.n, p.k, p.m, sums.data(), p.m, true);
  void* c = p.c + index * p.c_stride * emu::size_of(p.c_type);
  for (size_t column = 0; column < p.n; column++) {
    for (size_t row = 0; row < p.m; row++) {
      size_t at = column * p.ldc + row;
      // With beta 0 the old value must not count, even if it is NaN.
      float old = beta == 0 ? 0 : beta * emu::load(c, p.c_type, at);
      emu::store(c, p.c_type, at, alpha * sums[column * p.m + row] + old);
    }
  }
}

// Returns true if the last element of the operand is inside the allocation of its first element.
bool fits(const char* data, emu::Type type, size_t rows, size_t columns, size_t ld, long long stride,
          size_t batch) {
  if (ld < rows) return false;
  if (rows == 0 || columns == 0) return true;
  size_t last = (batch - 1) * size_t(stride) + (columns - 1) * ld + rows;
  return emu::bytes_at(CUdeviceptr(data)) >= last * emu::size_of(type);
}

bool is_valid(const Product& p) {
  return fits(p.a, p.a_type, p.a_transposed ? p.k : p.m, p.a_transposed ? p.m : p.k, p.lda, p.a_stride, p.batch) &&
         fits(p.b, p.b_type, p.b_transposed ? p.n : p.k, p.b_transposed ? p.k : p.n, p.ldb, p.b_stride, p.batch) &&
         fits(p.c, p.c_type, p.m, p.n, p.ldc, p.c_stride, p.batch);
}

Status enqueue(const Handle& handle, const Product& p, const float* alpha, const float* beta) {
  if (p.m == 0 || p.n == 0 || p.batch == 0) return success;
  if (!is_valid(p)) return invalid_value;
  bool on_host = handle.pointer_mode == scalars_on_host;
  float alpha_value = on_host ? *alpha : 0, beta_value = on_host ? *beta : 0;
  std::string name = std::to_string(p.m) + "x" + std::to_string(p.n) + "x" + std::to_string(p.k);
  CUresult result = emu::submit(handle.stream, "gemm", name, [=] {
    float a = on_host ? alpha_value : *alpha, b = on_host ? beta_value : *beta;
    for (size_t i = 0; i < p.batch; i++) multiply_one(p, i, a, b);
  });
  return result == CUDA_SUCCESS ? success : execution_failed;
}

Handle* handle_of(void* handle) { return static_cast<Handle*>(handle); }

}  // namespace

EMU_API Status cublasCreate_v2(void** handle) {
  CUcontext context = nullptr;
  cuCtxGetCurrent(&context);
  if (context == nullptr) return not_initialised;
  *handle = new Handle;
  return success;
}

EMU_API Status cublasDestroy_v2(void* handle) {
  delete handle_of(handle);
  return success;
}

EMU_API Status cublasSetStream_v2(void* handle, CUstream stream) {
  handle_of(handle)->stream = stream;
  return success;
}

EMU_API Status cublasGetStream_v2(void* handle, CUstream* stream) {
  *stream = handle_of(handle)->stream;
  return success;
}

EMU_API Status cublasSetPointerMode_v2(void* handle, int mode) {
  handle_of(handle)->pointer_mode = mode;
  return success;
}

EMU_API Status cublasGetPointerMode_v2(void* handle, int* mode) {
  *mode = handle_of(handle)->pointer_mode;
  return success;
}

EMU_API Status cublasSetMathMode(void* handle, int mode) {
  handle_of(handle)->math_mode = mode;
  return success;
}

EMU_API Status cublasGetMathMode(void* handle, int* mode) {
  *mode = handle_of(handle)->math_mode;
  return success;
}

EMU_API Status cublasSetWorkspace_v2(void*, void* workspace, size_t bytes) {
  bool is_allocated = bytes == 0 || emu::bytes_at(CUdeviceptr(workspace)) >= bytes;
  return is_allocated ? success : invalid_value;
}

EMU_API Status cublasGetVersion_v2(void*, int* version) {
  *version = 130000;
  return success;
}

EMU_API Status cublasGemmStridedBatchedEx(void* handle, int a_op, int b_op, int m, int n, int k,
                                          const void* alpha, const void* a, int a_type, int lda,
                                          long long a_stride, const void* b, int b_type, int ldb,
                                          long long b_stride, const void* beta, void* c, int c_type,
                                          int ldc, long long c_stride, int batch, int compute, int) {
  auto at = type_of(a_type), bt = type_of(b_type), ct = type_of(c_type);
  bool sums_in_f32 = std::find(std::begin(f32_sums), std::end(f32_sums), compute) != std::end(f32_sums);
  if (!sums_in_f32 || !at || !bt || !ct) return not_supported;
  if (m < 0 || n < 0 || k < 0 || batch < 0 || lda < 1 || ldb < 1 || ldc < 1) return invalid_value;
  Product p{a_op != op_none, b_op != op_none, size_t(m), size_t(n), size_t(k), size_t(lda), size_t(ldb), size_t(ldc),
            static_cast<const char*>(a), static_cast<const char*>(b), static_cast<char*>(c),
            operand_type(*at, compute), operand_type(*bt, compute), *ct, a_stride, b_stride, c_stride, size_t(batch)};
  return enqueue(*handle_of(handle), p, static_cast<const float*>(alpha), static_cast<const float*>(beta));
}

EMU_API Status cublasGemmEx(void* handle, int a_op, int b_op, int m, int n, int k, const void* alpha,
                            const void* a, int a_type, int lda, const void* b, int b_type, int ldb,
                            const void* beta, void* c, int c_type, int ldc, int compute, int algorithm) {
  return cublasGemmStridedBatchedEx(handle, a_op, b_op, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0,
                                    beta, c, c_type, ldc, 0, 1, compute, algorithm);
}

EMU_API Status cublasSgemm_v2(void* handle, int a_op, int b_op, int m, int n, int k, const float* alpha,
                              const float* a, int lda, const float* b, int ldb, const float* beta, float* c,
                              int ldc) {
  return cublasGemmEx(handle, a_op, b_op, m, n, k, alpha, a, type_f32, lda, b, type_f32, ldb, beta, c, type_f32,
                      ldc, f32_sums[0], 0);
}

EMU_API Status cublasSgemmStridedBatched(void* handle, int a_op, int b_op, int m, int n, int k,
                                         const float* alpha, const float* a, int lda, long long a_stride,
                                         const float* b, int ldb, long long b_stride, const float* beta, float* c,
                                         int ldc, long long c_stride, int batch) {
  return cublasGemmStridedBatchedEx(handle, a_op, b_op, m, n, k, alpha, a, type_f32, lda, a_stride, b, type_f32,
                                    ldb, b_stride, beta, c, type_f32, ldc, c_stride, batch, f32_sums[0], 0);
}

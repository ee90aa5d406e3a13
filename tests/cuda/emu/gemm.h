// Matrix product of the emulated libraries: operands of several types, sums in f32.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emu {

enum class Type { f32, f16 };

inline size_t size_of(Type type) { return type == Type::f32 ? 4 : 2; }

inline float load(const void* data, Type type, size_t index) {
  return type == Type::f32 ? static_cast<const float*>(data)[index]
                           : float(static_cast<const _Float16*>(data)[index]);
}

inline void store(void* data, Type type, size_t index, float value) {
  if (type == Type::f32) static_cast<float*>(data)[index] = value;
  else static_cast<_Float16*>(data)[index] = _Float16(value);
}

// Element (row, column) is at `row * row_step + column * column_step`.
struct Matrix {
  const void* data;
  Type type;
  size_t row_step, column_step;
};

// c (rows x columns, each row contiguous, rows in `c_step`) = a (rows x inner) * b (inner x columns).
// With `cores` the columns are shared out.
void multiply(const Matrix& a, const Matrix& b, size_t rows, size_t inner, size_t columns, float* c,
              size_t c_step, bool cores);

}  // namespace emu

// Matrix product of the emulated libraries: operands of several types, sums in f32.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace emu {

// tf32 lies in memory as f32 does, and is rounded when it is read.
enum class Type { f32, tf32, f16 };

inline size_t size_of(Type type) { return type == Type::f16 ? 2 : 4; }

// To 10 bits after the leading one: to the nearest, and away from zero half way.
inline float round_to_tf32(float value) {
  if (!std::isfinite(value)) return value;
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits = (bits + 0x1000) & ~0x1fffu;
  memcpy(&value, &bits, sizeof bits);
  return value;
}

inline float load(const void* data, Type type, size_t index) {
  if (type == Type::f16) return float(static_cast<const _Float16*>(data)[index]);
  float value = static_cast<const float*>(data)[index];
  return type == Type::tf32 ? round_to_tf32(value) : value;
}

inline void store(void* data, Type type, size_t index, float value) {
  if (type == Type::f16) static_cast<_Float16*>(data)[index] = _Float16(value);
  else static_cast<float*>(data)[index] = value;
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
              size_t c_step, bool use_all_cores);

}  // namespace emu

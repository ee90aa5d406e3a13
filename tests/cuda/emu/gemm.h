// Matrix product for the emulated libraries: operands of several types, sums in f32.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace emu {

// tf32 is stored as f32, and rounded when it is loaded.
enum class Type { f32, tf32, f16 };

inline size_t size_of(Type type) { return type == Type::f16 ? 2 : 4; }

// Rounds to 10 bits after the leading one: to the nearest number, and half-way cases away from
// zero.
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

// Computes c = a * b, where a is rows x inner and b is inner x columns. The rows of c are
// contiguous, and `c_step` elements apart. With `use_all_cores` the columns are shared among the
// host threads.
void multiply(const Matrix& a, const Matrix& b, size_t rows, size_t inner, size_t columns, float* c,
              size_t c_step, bool use_all_cores);

}  // namespace emu

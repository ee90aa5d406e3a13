// Matrix product: b is packed in panels of 32 columns and a in strips of 6 rows, so that a tile of
// 6 x 32 sums stays in registers.
#include "gemm.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "pool.h"

namespace emu {
namespace {

constexpr size_t strip = 6, panel = 32;

using Vector = float __attribute__((vector_size(64)));
constexpr size_t lanes = 16;

Vector load_vector(const float* from) {
  Vector v;
  memcpy(&v, from, sizeof v);
  return v;
}

// Returns the strips of a, one after another, each `inner` times `strip` values. Rows beyond the
// end are 0.
std::vector<float> pack_strips(const Matrix& a, size_t rows, size_t inner) {
  std::vector<float> packed((rows + strip - 1) / strip * strip * inner);
  for (size_t row = 0; row < rows; row++) {
    float* to = &packed[row / strip * strip * inner + row % strip];
    for (size_t k = 0; k < inner; k++)
      to[k * strip] = load(a.data, a.type, row * a.row_step + k * a.column_step);
  }
  return packed;
}

void pack_panel(const Matrix& b, size_t first, size_t width, size_t inner, float* to) {
  for (size_t k = 0; k < inner; k++)
    for (size_t i = 0; i < panel; i++)
      to[k * panel + i] = i < width ? load(b.data, b.type, k * b.row_step + (first + i) * b.column_step) : 0;
}

// Computes one tile: one strip times one panel.
void multiply_tile(const float* a, const float* b, size_t inner, float (&tile)[strip][panel]) {
  Vector sums[strip][2] = {};
  for (size_t k = 0; k < inner; k++) {
    Vector left = load_vector(b + k * panel), right = load_vector(b + k * panel + lanes);
    for (size_t row = 0; row < strip; row++) {
      sums[row][0] += a[k * strip + row] * left;
      sums[row][1] += a[k * strip + row] * right;
    }
  }
  memcpy(tile, sums, sizeof tile);
}

}  // namespace

void multiply(const Matrix& a, const Matrix& b, size_t rows, size_t inner, size_t columns, float* c,
              size_t c_step, bool use_all_cores) {
  const std::vector<float> strips = pack_strips(a, rows, inner);
  auto do_panel = [&](size_t index) {
    size_t first = index * panel, width = std::min(panel, columns - first);
    std::vector<float> packed(panel * inner);
    pack_panel(b, first, width, inner, packed.data());
    for (size_t row = 0; row < rows; row += strip) {
      float tile[strip][panel];
      multiply_tile(&strips[row * inner], packed.data(), inner, tile);
      for (size_t i = 0; i < std::min(strip, rows - row); i++)
        memcpy(c + (row + i) * c_step + first, tile[i], width * sizeof(float));
    }
  };
  size_t panels = (columns + panel - 1) / panel;
  if (use_all_cores) return parallel(panels, do_panel);
  for (size_t i = 0; i < panels; i++) do_panel(i);
}

}  // namespace emu

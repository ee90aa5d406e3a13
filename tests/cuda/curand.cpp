// The part of cuRAND that candle needs to open a device: a generator that gives no numbers.
#include <cstdint>

#include "emu/library.h"

#define EMU_API extern "C" __attribute__((visibility("default")))

namespace {
enum Status { success = 0, not_initialised = 101 };
struct Generator {
  CUstream stream = nullptr;
  uint64_t seed = 0;
};
}  // namespace

EMU_API Status curandCreateGenerator(void** generator, int) {
  CUcontext context = nullptr;
  cuCtxGetCurrent(&context);
  if (context == nullptr) return not_initialised;
  *generator = new Generator;
  return success;
}

EMU_API Status curandDestroyGenerator(void* generator) {
  delete static_cast<Generator*>(generator);
  return success;
}

EMU_API Status curandSetStream(void* generator, CUstream stream) {
  static_cast<Generator*>(generator)->stream = stream;
  return success;
}

EMU_API Status curandSetPseudoRandomGeneratorSeed(void* generator, unsigned long long seed) {
  static_cast<Generator*>(generator)->seed = seed;
  return success;
}

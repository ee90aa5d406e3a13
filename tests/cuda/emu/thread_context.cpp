// A library of its own, with nothing else in it: a program that is running has little room for
// variables of threads that are found in one instruction, and none for all shared memory (cuda.h).
#include "cuda.h"

namespace emu {

__thread ThreadContext thread_context;

}  // namespace emu

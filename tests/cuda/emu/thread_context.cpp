// This library holds one variable only. A thread_local variable that is read in one instruction
// needs static TLS, of which a running program has little left for a library that it loads. All
// shared memory (cuda.h) would not fit there.
#include "cuda.h"

namespace emu {

__thread ThreadContext thread_context;

}  // namespace emu

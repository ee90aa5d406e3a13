// Runs kernels: the blocks of a grid on host threads, the threads of a block as loops and fibres.
#pragma once

#include "cuda.h"

namespace emu {

// Runs a grid. Returns false if threads of a block wait at different barriers for ever.
bool run_grid(const Kernel& kernel, void** arguments, uint3 grid, uint3 block, size_t shared_bytes);

}  // namespace emu

// Runs kernels: grids on host threads, blocks as loops and fibres.
#pragma once

#include "cuda.h"

namespace emu {

// False if threads of a block wait for each other and never meet.
bool run_grid(const Kernel& kernel, void** arguments, uint3 grid, uint3 block, size_t shared_bytes);

}  // namespace emu

// A pool of host threads that share work.
#pragma once

#include <cstddef>
#include <functional>

namespace emu {

// Calls `function` for 0 to `size` - 1. Uses all cores, unless another call is using them.
void parallel(size_t size, const std::function<void(size_t)>& function);

}  // namespace emu

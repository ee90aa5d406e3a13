// Host threads that share out work.
#pragma once

#include <cstddef>
#include <functional>

namespace emu {

// Calls `f` for 0 to n - 1, on all cores where they are free.
void parallel(size_t size, const std::function<void(size_t)>& function);

}  // namespace emu

// Modules and kernels: reads the kernels that a PTX text defines, and launches them.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstring>

#include "block.h"
#include "driver.h"

namespace emu {
namespace {

using Lock = std::unique_lock<std::mutex>;

struct PtxEntry {
  size_t arguments;
  unsigned threads_max;
};

// The kernels of one .cu file, by name. Two files may have kernels of the same name.
using KernelFile = std::map<std::string, Kernel>;

struct Module {
  Device* device;
  const KernelFile* file;  // null if none of its kernels is built into the emulator
  std::map<std::string, PtxEntry> entries;
};

struct Function {
  Device* device;
  const Kernel* kernel;
  unsigned threads_max;
  int shared_limit = shared_default;
};

Handles<Module>& modules = *new Handles<Module>;
Handles<Function>& functions = *new Handles<Function>;

std::map<std::string, KernelFile>& files() {
  static std::map<std::string, KernelFile> all;
  return all;
}

// --- PTX ---

size_t count_arguments(const std::string& list) {
  size_t found = 0;
  for (size_t at = 0; (at = list.find(".param", at)) != std::string::npos; at++) found++;
  return found;
}

// Returns the most threads of a block: nvcc compiles __launch_bounds__ to `.maxntid x, y, z`
// between the arguments and the body.
unsigned launch_bound(const std::string& directives) {
  size_t at = directives.find(".maxntid");
  if (at == std::string::npos) return 1024;
  unsigned x = 1, y = 1, z = 1;
  sscanf(directives.c_str() + at, ".maxntid %u, %u, %u", &x, &y, &z);
  return x * y * z;
}

// Returns the kernels that a PTX text defines: `.entry name(arguments) directives { body }`.
std::map<std::string, PtxEntry> parse_entries(const std::string& ptx) {
  std::map<std::string, PtxEntry> entries;
  const std::string keyword = ".entry";
  for (size_t at = 0; (at = ptx.find(keyword, at)) != std::string::npos;) {
    at += keyword.size();
    while (at < ptx.size() && isspace(ptx[at])) at++;
    size_t end = at;
    while (end < ptx.size() && (isalnum(ptx[end]) || ptx[end] == '_' || ptx[end] == '$')) end++;
    size_t body = std::min(ptx.find('{', end), ptx.size());
    size_t open = ptx.find('(', end);
    size_t close = open < body ? std::min(ptx.find(')', open), body) : end;
    std::string arguments = open < body ? ptx.substr(open, close - open) : "";
    entries[ptx.substr(at, end - at)] = {count_arguments(arguments),
                                         launch_bound(ptx.substr(close, body - close))};
    at = body;
  }
  return entries;
}

// Returns the kernel file that has most of the kernels of a PTX text: the text does not name its
// file.
const KernelFile* find_file(const std::map<std::string, PtxEntry>& entries) {
  const KernelFile* best = nullptr;
  size_t most = 0;
  for (auto& [path, file] : files()) {
    size_t common = 0;
    for (auto& [name, entry] : entries) common += file.count(name);
    if (common > most) {
      most = common;
      best = &file;
    }
  }
  return best;
}

CUresult load_module(CUmodule* handle, const void* image) {
  Device* device;
  if (CUresult error = begin_call("module", device)) return error;
  if (CUresult error = refuse_in_capture()) return error;
  if (memcmp(image, "\x7f" "ELF", 4) == 0) {
    complain_once("a module is binary: only PTX text is emulated");
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  std::string ptx = static_cast<const char*>(image);
  if (ptx.find(".version") == std::string::npos) {
    complain_once("a module is not PTX: was it built by nvcc-none?");
    return CUDA_ERROR_INVALID_PTX;
  }
  auto module = std::make_shared<Module>();
  module->device = device;
  module->entries = parse_entries(ptx);
  module->file = find_file(module->entries);
  Lock lock(state_mutex);
  *handle = modules.insert<CUmodule>(module);
  return CUDA_SUCCESS;
}

// --- Launch ---

bool is_launchable(const Function& function, uint3 grid, uint3 block, unsigned shared_bytes) {
  for (unsigned size : {grid.x, grid.y, grid.z, block.x, block.y, block.z})
    if (size == 0) return false;
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) return false;
  if (block.x > 1024 || block.y > 1024 || block.z > 64) return false;
  if (uint64_t(block.x) * block.y * block.z > function.threads_max) return false;
  return shared_bytes <= unsigned(function.shared_limit);
}

// The argument values of a launch, copied at the launch.
struct Arguments {
  std::vector<uint64_t> storage;
  std::vector<void*> pointers;

  Arguments(const Kernel& kernel, void** given) {
    size_t words = 0;
    for (size_t size : kernel.argument_sizes) words += (size + 15) / 16 * 2;
    storage.resize(words + 1);
    auto* next = reinterpret_cast<char*>((uintptr_t(storage.data()) + 15) & ~uintptr_t(15));
    for (size_t i = 0; i < kernel.argument_sizes.size(); i++) {
      memcpy(next, given[i], kernel.argument_sizes[i]);
      pointers.push_back(next);
      next += (kernel.argument_sizes[i] + 15) / 16 * 16;
    }
  }

  // Tests only the first two words of each argument: the padding between later members of a
  // structure is not initialised, and may look like an address.
  bool point_to_freed_memory(const Kernel& kernel) const {
    for (size_t i = 0; i < pointers.size(); i++) {
      uint64_t words[2] = {};
      memcpy(words, pointers[i], std::min(kernel.argument_sizes[i], sizeof words));
      if (is_freed(words[0]) || is_freed(words[1])) return true;
    }
    return false;
  }
};

struct Launch {
  const Kernel* kernel;
  std::shared_ptr<Arguments> arguments;
  uint3 grid, block;
  unsigned shared_bytes;
};

CUresult run_launch(const Launch& launch) {
  const std::string name = launch.kernel->name;
  count("kernels");
  if (launch.arguments->point_to_freed_memory(*launch.kernel)) {
    complain_once("kernel " + name + " was given memory that has been freed");
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  if (run_grid(*launch.kernel, launch.arguments->pointers.data(), launch.grid, launch.block,
               launch.shared_bytes))
    return CUDA_SUCCESS;
  complain_once("kernel " + name + ": threads of a block wait at different barriers");
  return CUDA_ERROR_LAUNCH_FAILED;
}

}  // namespace

void add_kernel(const char* file, const Kernel& kernel) { files()[file].emplace(kernel.name, kernel); }

void destroy_modules(Device* device) {
  Lock lock(state_mutex);
  functions.remove_all_of(device);
  modules.remove_all_of(device);
}

}  // namespace emu

using namespace emu;

// --- Modules and kernels ---

EMU_API CUresult cuModuleLoadData(CUmodule* handle, const void* image) {
  return load_module(handle, image);
}

EMU_API CUresult cuModuleLoadDataEx(CUmodule* handle, const void* image, unsigned, CUjit_option*,
                                    void**) {
  return load_module(handle, image);
}

EMU_API CUresult cuModuleUnload(CUmodule handle) {
  Lock lock(state_mutex);
  return modules.remove(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

EMU_API CUresult cuModuleGetFunction(CUfunction* handle, CUmodule module_handle, const char* name) {
  Device* device;
  if (CUresult error = begin_call("module", device)) return error;
  Lock lock(state_mutex);
  auto module = modules.get(module_handle);
  if (module == nullptr || module->device != device) return CUDA_ERROR_INVALID_HANDLE;
  auto entry = module->entries.find(name);
  if (entry == module->entries.end()) return CUDA_ERROR_NOT_FOUND;
  const KernelFile* file = module->file;
  if (file == nullptr || file->count(name) == 0) {
    complain_once(std::string("kernel ") + name + " was not built into the emulator");
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  const Kernel* kernel = &file->at(name);
  if (kernel->argument_sizes.size() != entry->second.arguments) {
    complain_once(std::string("kernel ") + name + " has other arguments in the PTX: build both again");
    return CUDA_ERROR_INVALID_IMAGE;
  }
  auto function = std::make_shared<Function>();
  function->device = device;
  function->kernel = kernel;
  function->threads_max = entry->second.threads_max;
  *handle = functions.insert<CUfunction>(function);
  return CUDA_SUCCESS;
}

static std::shared_ptr<Function> find_function(CUfunction handle) {
  Lock lock(state_mutex);
  return functions.get(handle);
}

EMU_API CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute which, int value) {
  auto function = find_function(handle);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (which != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
  if (value < 0 || value > shared_max) return CUDA_ERROR_INVALID_VALUE;
  function->shared_limit = value;
  return CUDA_SUCCESS;
}

EMU_API CUresult cuFuncGetAttribute(int* value, CUfunction_attribute which, CUfunction handle) {
  auto function = find_function(handle);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  switch (which) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = int(function->threads_max); break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = function->shared_limit; break;
    default: return CUDA_ERROR_NOT_SUPPORTED;
  }
  return CUDA_SUCCESS;
}

EMU_API CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }

EMU_API CUresult cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                unsigned block_x, unsigned block_y, unsigned block_z,
                                unsigned shared_bytes, CUstream stream_handle, void** arguments,
                                void** extra) {
  Device* device;
  CUresult deferred_error = CUDA_SUCCESS;
  if (CUresult error = begin_call("launch", device, &deferred_error)) return error;
  auto function = find_function(handle);
  auto stream = find_stream(device, stream_handle);
  if (function == nullptr || stream == nullptr || function->device != device)
    return CUDA_ERROR_INVALID_HANDLE;
  if (extra != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  Launch launch{function->kernel, nullptr, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes};
  if (!is_launchable(*function, launch.grid, launch.block, shared_bytes))
    return CUDA_ERROR_INVALID_VALUE;
  launch.arguments = std::make_shared<Arguments>(*launch.kernel, arguments);
  count("launches");
  return enqueue(stream, {std::string("kernel ") + launch.kernel->name, [=] {
                            return deferred_error != CUDA_SUCCESS ? deferred_error
                                                                  : run_launch(launch);
                          }});
}

// Settings, faults, counters and the trace: what a test can ask of the emulator.
#pragma once

#include <cuda.h>

#include <atomic>
#include <cstdint>
#include <string>

namespace emu {

enum class Streams { now, lazy, threads };

struct Settings {
  std::atomic<Streams> streams{Streams::now};
  std::atomic<int> devices{1};
  std::atomic<int> capability{86};
  std::atomic<int> cuda_version{CUDA_VERSION};
  std::atomic<size_t> memory_bytes{size_t(4096) << 20};
  std::atomic<bool> check{false};
  std::atomic<bool> complaints_abort{false};
};

Settings& settings();

// False for a name or value that does not exist.
bool set(const std::string& name, const std::string& value);

void count(const char* name, int64_t by = 1);
void raise_to(const char* name, int64_t value);
int64_t counter(const std::string& name);

// One line of the trace, if there is one: what happened (enqueue, run, wait ...), where, and details.
void trace(const char* what, const std::string& where, const std::string& details);

// Says once on stderr what the emulator cannot do, or what the program must not.
void complain_once(const std::string& text);

// In place of an error: what meets it never ends. No error of the driver has this number.
constexpr CUresult hang_code = CUresult(1000);

// The error that a call of this kind on this device is to meet, or CUDA_SUCCESS. Counts the call.
CUresult planned_fault(const std::string& kind, int device);

// Whether a device that met this error refuses everything until it is reset, or hangs.
bool breaks_device(CUresult error);

}  // namespace emu

// Settings, planned faults, counters and the trace, by which a test controls the emulator.
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

// Returns false if the name or the value does not exist.
bool set(const std::string& name, const std::string& value);

void count(const char* name, int64_t by = 1);
void raise_to(const char* name, int64_t value);
int64_t counter(const std::string& name);

// Writes one line to the trace, if it is on: what happened (enqueue, run, wait ...), where,
// details.
void trace(const char* what, const std::string& where, const std::string& details);

// Counts a complaint about a missing feature of the emulator or a misuse by the program, and prints
// each text once on stderr.
void complain_once(const std::string& text);

// Stands for an error code: the operation never ends. No error of the driver has this number.
constexpr CUresult hang_code = CUresult(1000);

// Counts a call of this kind on this device. Returns the error planned for it, or CUDA_SUCCESS.
CUresult planned_fault(const std::string& kind, int device);

// Returns true for errors after which a device refuses all calls until its reset, and for hangs.
bool breaks_device(CUresult error);

}  // namespace emu

// Settings, planned faults, counters and the trace. driver.cpp lists all settings and counters.
#include "settings.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <vector>

namespace emu {
namespace {

struct Fault {
  std::string kind;
  int64_t call, calls_seen = 0, times = 1;
  CUresult code;
  int device = -1;
};

std::mutex mutex;
std::vector<Fault> faults;
FILE* trace_file;
int64_t trace_lines;

std::map<std::string, int64_t>& counters() {
  static std::map<std::string, int64_t> all;
  return all;
}

// Only operations of a stream can hang.
bool may_hang(const std::string& kind) {
  static const std::set<std::string> kinds{"launch", "graph", "gemm", "conv",
                                           "h2d",    "d2h",   "d2d",  "memset"};
  return kinds.count(kind) > 0;
}

// Parses KIND:CALL:CODE[:TIMES][@DEVICE].
bool parse_fault(std::string text, Fault& fault) {
  size_t at = text.find('@');
  if (at != std::string::npos) {
    fault.device = atoi(text.c_str() + at + 1);
    text.resize(at);
  }
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ':');) parts.push_back(part);
  if (parts.size() < 3 || parts.size() > 4) return false;
  fault.kind = parts[0];
  fault.call = atoll(parts[1].c_str());
  fault.code = parts[2] == "hang" ? hang_code : CUresult(atoi(parts[2].c_str()));
  if (fault.code == hang_code && !may_hang(fault.kind)) return false;
  if (parts.size() == 4) fault.times = parts[3] == "*" ? INT64_MAX : atoll(parts[3].c_str());
  return fault.call > 0 && fault.code > 0 && fault.times > 0;
}

bool set_faults(const std::string& value) {
  std::vector<Fault> parsed;
  std::stringstream stream(value);
  for (std::string text; std::getline(stream, text, ',');) {
    Fault fault;
    if (!parse_fault(text, fault)) return false;
    parsed.push_back(fault);
  }
  std::lock_guard lock(mutex);
  faults = parsed;
  return true;
}

bool set_trace(const std::string& path) {
  std::lock_guard lock(mutex);
  if (trace_file != nullptr) fclose(trace_file);
  trace_file = path.empty() ? nullptr : fopen(path.c_str(), "w");
  trace_lines = 0;
  return path.empty() || trace_file != nullptr;
}

bool set_streams(const std::string& value) {
  if (value == "now") settings().streams = Streams::now;
  else if (value == "lazy") settings().streams = Streams::lazy;
  else if (value == "threads") settings().streams = Streams::threads;
  else return false;
  return true;
}

bool set_number(std::atomic<int>& setting, const std::string& value, int max) {
  char* end;
  long number = strtol(value.c_str(), &end, 10);
  if (value.empty() || *end != 0 || number < 0 || number > max) return false;
  setting = int(number);
  return true;
}

bool set_memory(const std::string& value) {
  std::atomic<int> mib;
  if (!set_number(mib, value, 1 << 20)) return false;
  settings().memory_bytes = size_t(mib) << 20;
  return true;
}

// Reads the settings from the environment. A setting that does not exist ends the process, so that
// a misspelt one is noticed.
struct FromEnvironment {
  FromEnvironment() {
    for (const char* name : {"streams", "devices", "capability", "cuda_version", "memory_mib",
                             "fault", "trace", "check", "complaints"}) {
      std::string variable = "EMU_";
      for (const char* c = name; *c != 0; c++) variable += char(toupper(*c));
      const char* value = getenv(variable.c_str());
      if (value == nullptr || set(name, value)) continue;
      fprintf(stderr, "emu: %s=%s is not understood\n", variable.c_str(), value);
      abort();
    }
  }
};

}  // namespace

Settings& settings() {
  static Settings all;
  return all;
}

bool set(const std::string& name, const std::string& value) {
  if (name == "streams") return set_streams(value);
  if (name == "devices") return set_number(settings().devices, value, 8);
  if (name == "capability") return set_number(settings().capability, value, 999);
  if (name == "cuda_version") return set_number(settings().cuda_version, value, 99990);
  if (name == "memory_mib") return set_memory(value);
  if (name == "fault") return set_faults(value);
  if (name == "trace") return set_trace(value);
  if (name == "check") return (settings().check = value == "1"), value == "0" || value == "1";
  if (name == "complaints") {
    settings().complaints_abort = value == "abort";
    return value == "count" || value == "abort";
  }
  return false;
}

void count(const char* name, int64_t by) {
  std::lock_guard lock(mutex);
  counters()[name] += by;
}

void raise_to(const char* name, int64_t value) {
  std::lock_guard lock(mutex);
  int64_t& counter = counters()[name];
  if (counter < value) counter = value;
}

void trace(const char* what, const std::string& where, const std::string& details) {
  std::lock_guard lock(mutex);
  if (trace_file == nullptr) return;
  fprintf(trace_file, "%ld %s %s %s\n", long(++trace_lines), what, where.c_str(), details.c_str());
  fflush(trace_file);
}

void complain_once(const std::string& text) {
  static std::set<std::string> said;
  std::lock_guard lock(mutex);
  counters()["complaints"]++;
  if (said.insert(text).second) fprintf(stderr, "emu: %s\n", text.c_str());
  if (settings().complaints_abort) abort();
}

CUresult planned_fault(const std::string& kind, int device) {
  std::lock_guard lock(mutex);
  for (Fault& fault : faults) {
    bool matches = (fault.kind == kind || fault.kind == "any") &&
                 (fault.device < 0 || fault.device == device);
    if (!matches) continue;
    fault.calls_seen++;
    if (fault.calls_seen >= fault.call && fault.calls_seen - fault.call < fault.times)
      return fault.code;
  }
  return CUDA_SUCCESS;
}

bool breaks_device(CUresult error) {
  if (error == hang_code) return true;
  switch (error) {
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_UNKNOWN:
      return true;
    default:
      return false;
  }
}

int64_t counter(const std::string& name) {
  std::lock_guard lock(mutex);
  auto found = counters().find(name);
  return found == counters().end() ? 0 : found->second;
}

// Runs when the library is loaded, after the objects above are constructed.
static FromEnvironment from_environment;

}  // namespace emu

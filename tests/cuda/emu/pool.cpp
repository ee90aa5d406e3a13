// Host threads that share the blocks of a grid, or the panels of a matrix product.
#include "pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace emu {
namespace {

// Runs one call at a time. A call that comes meanwhile runs on its own thread alone.
struct Pool {
  std::mutex busy;
  std::mutex mutex;
  std::condition_variable wake, idle;
  const std::function<void(size_t)>* work = nullptr;
  size_t count = 0, generation = 0, active_workers = 0;
  std::atomic<size_t> next{0};

  Pool() {
    size_t others = std::max(1u, std::thread::hardware_concurrency()) - 1;
    for (size_t i = 0; i < others; i++) std::thread([this] { run_worker(); }).detach();
  }

  void run_remaining() {
    for (size_t i; (i = next.fetch_add(1)) < count;) (*work)(i);
  }

  void run_worker() {
    size_t seen_generation = 0;
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return generation != seen_generation; });
      seen_generation = generation;
      if (work == nullptr) continue;
      active_workers++;
      lock.unlock();
      run_remaining();
      lock.lock();
      if (--active_workers == 0) idle.notify_one();
    }
  }

  void run_shared(size_t size, const std::function<void(size_t)>& function) {
    std::unique_lock lock(mutex);
    work = &function;
    count = size;
    next = 0;
    generation++;
    lock.unlock();
    wake.notify_all();
    run_remaining();
    lock.lock();
    idle.wait(lock, [&] { return active_workers == 0; });
    work = nullptr;
  }
};

}  // namespace

void parallel(size_t size, const std::function<void(size_t)>& function) {
  // The pool is never destroyed, since its threads run until the process ends.
  static Pool& pool = *new Pool;
  std::unique_lock lock(pool.busy, std::try_to_lock);
  if (size > 1 && lock.owns_lock()) return pool.run_shared(size, function);
  for (size_t i = 0; i < size; i++) function(i);
}

}  // namespace emu

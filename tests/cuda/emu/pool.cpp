// Host threads that share out the blocks of a grid, or the panels of a matrix product.
#include "pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace emu {
namespace {

// One piece of work at a time; whoever comes while it is under way works alone.
struct Pool {
  std::mutex busy;
  std::mutex mutex;
  std::condition_variable wake, idle;
  const std::function<void(size_t)>* work = nullptr;
  size_t count = 0, round = 0, working = 0;
  std::atomic<size_t> next{0};

  Pool() {
    size_t others = std::max(1u, std::thread::hardware_concurrency()) - 1;
    for (size_t i = 0; i < others; i++) std::thread([this] { serve(); }).detach();
  }

  void take_all() {
    for (size_t i; (i = next.fetch_add(1)) < count;) (*work)(i);
  }

  void serve() {
    size_t seen = 0;
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return round != seen; });
      seen = round;
      if (work == nullptr) continue;
      working++;
      lock.unlock();
      take_all();
      lock.lock();
      if (--working == 0) idle.notify_one();
    }
  }

  void share(size_t n, const std::function<void(size_t)>& f) {
    std::unique_lock lock(mutex);
    work = &f;
    count = n;
    next = 0;
    round++;
    lock.unlock();
    wake.notify_all();
    take_all();
    lock.lock();
    idle.wait(lock, [&] { return working == 0; });
    work = nullptr;
  }
};

}  // namespace

void parallel(size_t n, const std::function<void(size_t)>& f) {
  // Never destroyed: its threads outlive everything.
  static Pool& pool = *new Pool;
  std::unique_lock alone(pool.busy, std::try_to_lock);
  if (n > 1 && alone.owns_lock()) return pool.share(n, f);
  for (size_t i = 0; i < n; i++) f(i);
}

}  // namespace emu

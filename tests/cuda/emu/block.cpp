// Runs the blocks of a grid, as cuda.h describes. This file implements how threads wait.
//
// A fibre runs threads of the block until one of them has to wait. The fibre is then put aside, and
// another fibre runs the threads that have not started. Once all threads have started, those that
// have not returned are waiting, so it is known which barriers are complete.
#include "block.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>

#include "pool.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emu {

namespace {

enum class WaitPoint { block_barrier, warp_exchange };

struct Fibre {
  void* stack_pointer;
  char* stack;
  // State of the thread that waits on this fibre:
  WaitPoint wait_point;
  uint3 thread;
  unsigned index, mask;
  Exchange* exchange;
};

// Stacks are larger with a sanitizer, which puts red zones around every local variable.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t stack_bytes = 256 << 10;
#else
constexpr size_t stack_bytes = 64 << 10;
#endif

void destroy_fibre(Fibre* fibre) {
  munmap(fibre->stack, stack_bytes);
  delete fibre;
}

// The block that a host thread runs, and the thread's fibres.
struct Block {
  const Kernel* kernel;
  void** arguments;
  void* stack_pointer;  // stack of the host thread, while a fibre runs
  Fibre* running;
  std::vector<Fibre*> idle, waiting;
  bool backwards;
  std::vector<char> shared;

  ~Block() {
    for (Fibre* fibre : idle) destroy_fibre(fibre);
  }
};

thread_local Block block;

// Saves the registers that a call must preserve on the stack that is left, and restores them from
// the stack that is entered.
extern "C" void emu_switch(void** left, void* entered);
asm(R"(
.text
.p2align 4
.type emu_switch, @function
emu_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size emu_switch, . - emu_switch
)");

#if defined(__SANITIZE_ADDRESS__)
thread_local const void* host_stack;
thread_local size_t host_stack_bytes;
#endif

void switch_to(Fibre& fibre) {
  block.running = &fibre;
#if defined(__SANITIZE_ADDRESS__)
  void* fake;
  __sanitizer_start_switch_fiber(&fake, fibre.stack, stack_bytes);
#endif
  emu_switch(&block.stack_pointer, fibre.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void switch_back(Fibre& fibre) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake;
  __sanitizer_start_switch_fiber(&fake, host_stack, host_stack_bytes);
#endif
  emu_switch(&fibre.stack_pointer, block.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, &host_stack, &host_stack_bytes);
#endif
}

void run_fibre() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &host_stack, &host_stack_bytes);
#endif
  for (;;) {
    block.kernel->run(block.arguments);
    Fibre* self = block.running;
    block.idle.push_back(self);
    switch_back(*self);
  }
}

Fibre* new_fibre() {
  void* stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) abort();
  // An access to the lowest page shows that the stack is too small.
  mprotect(stack, 4096, PROT_NONE);
  auto* fibre = new Fibre{};
  fibre->stack = static_cast<char*>(stack);
  // The stack holds six registers, the return address, and one word that aligns it as after a call.
  auto* top = reinterpret_cast<void**>(fibre->stack + stack_bytes);
  top[-2] = reinterpret_cast<void*>(run_fibre);
  fibre->stack_pointer = top - 8;
  return fibre;
}

Fibre* take_idle_fibre() {
  if (block.idle.empty()) return new_fibre();
  Fibre* fibre = block.idle.back();
  block.idle.pop_back();
  return fibre;
}

void wait_at(WaitPoint wait_point, unsigned mask, Exchange* exchange) {
  Fibre* self = block.running;
  self->wait_point = wait_point;
  self->thread = thread_context.thread;
  self->index = thread_index();
  self->mask = mask;
  self->exchange = exchange;
  block.waiting.push_back(self);
  switch_back(*self);
  thread_context.thread = self->thread;
}

struct Warp {
  unsigned alive = 0;
  Fibre* exchanging[32] = {};
};

// Exchanges the values of complete warp collectives, and returns the fibres that may continue.
std::vector<Fibre*> complete_exchanges() {
  Warp warps[32];
  for (Fibre* fibre : block.waiting) {
    Warp& warp = warps[fibre->index / 32];
    unsigned lane = fibre->index % 32;
    warp.alive |= 1u << lane;
    if (fibre->wait_point == WaitPoint::warp_exchange) warp.exchanging[lane] = fibre;
  }
  std::vector<Fibre*> ready;
  for (Warp& warp : warps) {
    unsigned present = 0;
    for (unsigned lane = 0; lane < 32; lane++)
      present |= unsigned(warp.exchanging[lane] != nullptr) << lane;
    for (Fibre* fibre : warp.exchanging) {
      if (fibre == nullptr || (fibre->mask & warp.alive & ~present) != 0) continue;
      Exchange& mine = *fibre->exchange;
      const Fibre* source = mine.source < 32 ? warp.exchanging[mine.source] : nullptr;
      // The value of a lane that does not take part is undefined. All bits set is a NaN.
      mine.result = source == nullptr ? ~uint64_t(0) : source->exchange->value;
      for (unsigned lane = 0; lane < 32; lane++) {
        if (warp.exchanging[lane] != nullptr && (fibre->mask >> lane & 1) != 0)
          mine.votes |= unsigned(warp.exchanging[lane]->exchange->value != 0) << lane;
      }
      ready.push_back(fibre);
    }
  }
  return ready;
}

bool all_at_block_barrier() {
  for (Fibre* fibre : block.waiting)
    if (fibre->wait_point != WaitPoint::block_barrier) return false;
  return true;
}

// Removes the fibres whose wait is over from the waiting ones and returns them.
std::vector<Fibre*> take_released() {
  std::vector<Fibre*> ready = all_at_block_barrier() ? block.waiting : complete_exchanges();
  auto released = [&](Fibre* fibre) {
    return std::find(ready.begin(), ready.end(), fibre) != ready.end();
  };
  if (ready.size() == block.waiting.size()) {
    block.waiting.clear();
  } else {
    block.waiting.erase(std::remove_if(block.waiting.begin(), block.waiting.end(), released),
                        block.waiting.end());
  }
  // The order alternates between first to last and last to first thread, so that a forgotten
  // barrier shows for either neighbour.
  block.backwards = !block.backwards;
  std::sort(ready.begin(), ready.end(), [](Fibre* a, Fibre* b) {
    return block.backwards ? a->index > b->index : a->index < b->index;
  });
  return ready;
}

bool run_block() {
  thread_context.unstarted = thread_context.block_size.x * thread_context.block_size.y *
                             thread_context.block_size.z;
  thread_context.next = {0, 0, 0};
  for (;;) {
    while (thread_context.unstarted > 0) switch_to(*take_idle_fibre());
    if (block.waiting.empty()) return true;
    std::vector<Fibre*> ready = take_released();
    if (ready.empty()) {
      // These fibres cannot be reused: their stacks hold a kernel that has not returned.
      for (Fibre* fibre : block.waiting) destroy_fibre(fibre);
      block.waiting.clear();
      return false;
    }
    for (Fibre* fibre : ready) switch_to(*fibre);
  }
}

}  // namespace

void block_barrier() { wait_at(WaitPoint::block_barrier, 0, nullptr); }

void warp_exchange(unsigned mask, Exchange& exchange) {
  wait_at(WaitPoint::warp_exchange, mask, &exchange);
}

bool run_grid(const Kernel& kernel, void** arguments, uint3 grid, uint3 size, size_t shared_bytes) {
  size_t blocks = size_t(grid.x) * grid.y * grid.z;
  size_t threads = size_t(size.x) * size.y * size.z;
  // A part has enough threads to be worth waking another core.
  size_t blocks_per_part = std::max<size_t>(1, 4096 / threads);
  std::atomic<bool> completed{true};
  parallel((blocks + blocks_per_part - 1) / blocks_per_part, [&](size_t part) {
    thread_context.block_size = size;
    thread_context.grid = grid;
    block.kernel = &kernel;
    block.arguments = arguments;
    if (block.shared.size() < shared_bytes + 128) block.shared.resize(shared_bytes + 128);
    thread_context.dynamic_shared =
        reinterpret_cast<char*>((uintptr_t(block.shared.data()) + 127) & ~uintptr_t(127));
    for (size_t i = part * blocks_per_part;
         i < std::min(blocks, (part + 1) * blocks_per_part); i++) {
      thread_context.block = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y),
                    unsigned(i / (size_t(grid.x) * grid.y))};
      // A device does not clear shared memory either. The NaNs show kernels that rely on zeros.
      memset(thread_context.dynamic_shared, 0xff, shared_bytes);
      if (!run_block()) completed = false;
    }
  });
  return completed;
}

}  // namespace emu

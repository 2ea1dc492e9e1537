#include <link.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>

#include "scheduler.h"
#include "simt.h"
#include "state.h"

namespace simt {
namespace {

// What every device from compute capability 8.0 on takes.
constexpr unsigned max_block_threads = 1024, max_block_depth = 64;
constexpr unsigned max_grid_width = (1u << 31) - 1, max_grid_height = 65535;
constexpr size_t max_dynamic_shared = 163 << 10;

unsigned initial_schedule() {
  const char* wanted = std::getenv("SIMT_SCHEDULE");
  return wanted ? unsigned(std::strtoul(wanted, nullptr, 10)) : 0;
}

unsigned schedule = initial_schedule();
Observer* observer = nullptr;

struct Barrier {
  std::string file_name;
  unsigned line = 0;
};
Barrier skipped;
unsigned long skipped_count = 0;

bool skips(const Location& here) {
  if (skipped.line != here.line()) return false;
  const std::string_view path = here.file_name();
  if (skipped.file_name.empty() || !path.ends_with(skipped.file_name)) return false;
  ++skipped_count;
  return true;
}

// Exactly as long as asked for, so that AddressSanitizer sees what lies beyond.
std::unique_ptr<unsigned char[]> dynamic_memory;
size_t dynamic_bytes = 0;

// The place of this program's thread-local variables, which are the static shared memory of all kernels.
thread_local unsigned char anchor = 0;

int find_thread_locals(dl_phdr_info* info, size_t, void* found) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_TLS || info->dlpi_tls_data == nullptr) continue;
    const Range range{static_cast<unsigned char*>(info->dlpi_tls_data), segment.p_memsz};
    if (range.contains(&anchor)) *static_cast<Range*>(found) = range;
  }
  return 0;
}

// Fills shared memory with ones, which are NaN, so that it shows when a kernel reads what it has not written.
class Poison {
 public:
  Poison() : statics_(static_shared_range()) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(SIMT_RACES)
    if (statics_.bytes) std::memset(statics_.begin, ones, statics_.bytes);
#endif
  }

  void before_block() {
    if (dynamic_bytes) std::memset(dynamic_memory.get(), ones, dynamic_bytes);
    if (dirty_.bytes) std::memset(dirty_.begin, ones, dirty_.bytes);
  }

  // The static memory of one kernel is a small part of all: only that part is looked after which its first blocks used.
  void after_block(uint64_t block) {
    constexpr uint64_t first_blocks = 4;
    if (block >= first_blocks || statics_.bytes == 0) return;
    unsigned char *begin = statics_.begin, *end = statics_.begin + statics_.bytes;
    while (begin < end && *begin == ones) ++begin;
    while (begin < end && end[-1] == ones) --end;
    if (dirty_.bytes) {
      end = std::max(end, dirty_.begin + dirty_.bytes);
      begin = std::min(begin, dirty_.begin);
    }
    dirty_ = {begin, size_t(end - begin)};
  }

 private:
  static constexpr unsigned char ones = 0xff;
  Range statics_, dirty_;
};

void check(dim3 grid, dim3 block, size_t dynamic_shared_bytes) {
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > max_block_threads || block.z > max_block_depth) {
    throw Error("launch: a block of " + std::to_string(block.x) + " x " + std::to_string(block.y) + " x " +
                std::to_string(block.z) + " threads");
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > max_grid_width || grid.y > max_grid_height ||
      grid.z > max_grid_height) {
    throw Error("launch: a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                std::to_string(grid.z) + " blocks");
  }
  if (dynamic_shared_bytes > max_dynamic_shared) {
    throw Error("launch: " + std::to_string(dynamic_shared_bytes) + " bytes of dynamic shared memory");
  }
}

// Which block runs i-th.
uint64_t nth_block(uint64_t i, uint64_t count) {
  if (schedule == 0) return i;
  if (schedule == 1) return count - 1 - i;
  uint64_t stride = (count * 5 / 8 + schedule) | 1;  // coprime with the count: every block comes once
  while (std::gcd(stride, count) != 1) stride += 2;
  return (i % count * (stride % count) + schedule) % count;
}

Scheduler::Order thread_order() {
  if (schedule == 0) return Scheduler::Order::forward;
  return schedule == 1 ? Scheduler::Order::backward : Scheduler::Order::shuffled;
}

}  // namespace

void set_schedule(unsigned wanted) { schedule = wanted; }

void set_observer(Observer* wanted) { observer = wanted; }

void skip_barrier(const char* file_name, unsigned line) {
  skipped = {file_name, line};
  skipped_count = 0;
}

unsigned long skipped_barriers() { return skipped_count; }

Range dynamic_shared_range() { return {dynamic_memory.get(), dynamic_bytes}; }

void* dynamic_shared() { return dynamic_memory.get(); }

Range static_shared_range() {
  anchor = 0;  // the first access makes the place
  Range range;
  dl_iterate_phdr(find_thread_locals, &range);
  return range;
}

void launch(dim3 grid_size, dim3 block_size, size_t dynamic_shared_bytes, const std::function<void()>& thread,
            const void* kernel) {
  check(grid_size, block_size, dynamic_shared_bytes);
  static std::recursive_mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  if (running) throw Error("launch: a kernel launches another");
  if (dynamic_shared_bytes != dynamic_bytes) {
    dynamic_memory.reset(new unsigned char[dynamic_shared_bytes]);
    dynamic_bytes = dynamic_shared_bytes;
  }
  if (observer) observer->launch_begins(kernel, grid_size, block_size, dynamic_shared_bytes);
  Poison poison;
  grid.size = grid_size;
  grid.block_size = block_size;
  const uint64_t blocks = uint64_t(grid_size.x) * grid_size.y * grid_size.z;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t b = nth_block(i, blocks);
    grid.block_index = {unsigned(b % grid_size.x), unsigned(b / grid_size.x % grid_size.y),
                        unsigned(b / grid_size.x / grid_size.y)};
    poison.before_block();
    Scheduler::instance().run_block(block_size, thread, thread_order(), schedule + b);
    poison.after_block(i);
    if (observer) observer->block_ends();
  }
}

unsigned sync_block(bool predicate, Location here) {
  return skips(here) ? predicate : Scheduler::instance().sync_block(predicate, here);
}

void sync_warp(unsigned mask, Location here) {
  if (!skips(here)) Scheduler::instance().sync_warp(mask, here);
}

uint64_t exchange(unsigned mask, uint64_t value, unsigned source, Location here) {
  return Scheduler::instance().exchange(mask, value, source, here);
}

unsigned ballot(unsigned mask, bool predicate, Location here) {
  return Scheduler::instance().ballot(mask, predicate, here);
}

}  // namespace simt

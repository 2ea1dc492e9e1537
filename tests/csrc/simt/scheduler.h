// Runs the threads of one block on fibers that are kept for later blocks and launches.
#pragma once

#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <vector>

#include "context.h"
#include "state.h"

namespace simt {

class Scheduler {
 public:
  static Scheduler& instance();

  // Threads run in the order of their ranks, backward or shuffled by `seed`, each as far as it gets.
  enum class Order { forward, backward, shuffled };
  void run_block(dim3 size, const std::function<void()>& kernel, Order order, uint64_t seed);

  // See state.h.
  unsigned sync_block(bool predicate, Location here);
  void sync_warp(unsigned mask, Location here);
  uint64_t exchange(unsigned mask, uint64_t value, unsigned source, Location here);
  unsigned ballot(unsigned mask, bool predicate, Location here);

 private:
  // What the threads that wait for each other have in common. ThreadSanitizer learns their order from the addresses of
  // `order`: two, because one thread may come to the next meeting before another has left this one.
  struct Meeting {
    unsigned mask = 0;     // of a warp: the lanes that meet
    unsigned arrived = 0;  // threads of a block, or a bit for each lane of a warp
    unsigned trues = 0;    // of a block: threads whose predicate held
    unsigned phase = 0;    // meetings that came to an end
    Location site;         // of those who arrived
    char order[2];
  };

  struct Warp {
    unsigned live = 0;             // a bit for each lane that has not ended
    std::deque<Meeting> meetings;  // one for each mask
  };

  struct Slot {
    Context* fiber = nullptr;  // null: not yet started
    uint64_t value = 0;      // given to a meeting, then received from it
    unsigned source = 0;     // the lane whose value is wanted, or `every_lane`
  };
  static constexpr unsigned every_lane = warp_size;

  static void serve();
  void begin_block(dim3 size, Order order, uint64_t seed);
  void forget_fibers();
  Context& fiber_for(unsigned rank);
  void make_ready(unsigned rank);
  unsigned take_ready();
  void dispatch(Context& from);
  void leave();
  void end_thread();
  void end_block_meeting();
  Meeting& meeting_of(unsigned mask);
  uint64_t meet_warp(unsigned mask, uint64_t value, unsigned source, bool orders_memory, Location here);
  void end_warp_meeting(Meeting& meeting, unsigned warp);
  Error deadlock() const;

  const std::function<void()>* kernel_ = nullptr;
  dim3 size_;
  std::vector<Thread> threads_;
  std::vector<Slot> slots_;
  std::vector<Warp> warps_;
  unsigned live_ = 0;
  Meeting block_;
  std::vector<unsigned> waiting_;  // for the block, in the order of arrival
  std::vector<unsigned> ready_;    // ranks; those before next_ have been taken
  size_t next_ = 0;
  Order order_ = Order::forward;
  uint64_t random_ = 1;

  std::vector<std::unique_ptr<Context>> fibers_;
  std::vector<Context*> idle_;
  Context* current_ = nullptr;
  Context caller_;
  std::exception_ptr error_;
};

}  // namespace simt

#include "scheduler.h"

#include <cstring>
#include <sstream>
#include <utility>

#if defined(SIMT_RACES)
#include <sanitizer/tsan_interface.h>
#endif

namespace simt {

const Thread* running = nullptr;
Grid grid;

namespace {

// What one thread did before `publish` is ordered before what another does after `receive` of the same address. The
// emulator itself is compiled without ThreadSanitizer, so this is all the order that it sees.
void publish([[maybe_unused]] char& order) {
#if defined(SIMT_RACES)
  __tsan_release(&order);
#endif
}

void receive([[maybe_unused]] char& order) {
#if defined(SIMT_RACES)
  __tsan_acquire(&order);
#endif
}

char block_order;  // of everything in one block before everything in the next

// The race detector tells threads apart by their fibers.
#if defined(SIMT_RACES)
constexpr bool fiber_per_thread = true;
#else
constexpr bool fiber_per_thread = false;
#endif

constexpr size_t many_taken = 4096;  // entries of the list of ready threads after which it is shortened

bool same(const Location& a, const Location& b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

std::string text_of(const Location& place) {
  return std::string(place.file_name()) + ":" + std::to_string(place.line());
}

// For all who meet in one place at one time.
void check_same_place(bool first, const Location& theirs, const Location& here) {
  if (!first && !same(theirs, here)) {
    throw Error("divergent threads: some wait at " + text_of(theirs) + ", one came to " + text_of(here));
  }
}

uint64_t next_random(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

}  // namespace

Scheduler& Scheduler::instance() {
  static Scheduler& scheduler = *new Scheduler;  // never destroyed: fibers may refer to it until the process ends
  return scheduler;
}

void Scheduler::run_block(dim3 size, const std::function<void()>& kernel, Order order, uint64_t seed) {
  kernel_ = &kernel;
  begin_block(size, order, seed);
  publish(block_order);
  dispatch(caller_);
  running = nullptr;
  receive(block_order);
  if (error_ || live_ > 0) {
    const std::exception_ptr error = error_ ? std::exchange(error_, nullptr) : std::make_exception_ptr(deadlock());
    forget_fibers();
    std::rethrow_exception(error);
  }
}

void Scheduler::begin_block(dim3 size, Order order, uint64_t seed) {
  const unsigned count = size.x * size.y * size.z;
  if (threads_.size() != count || size.x != size_.x || size.y != size_.y) {
    size_ = size;
    threads_.resize(count);
    for (unsigned rank = 0; rank < count; ++rank) {
      const uint3 index{rank % size.x, rank / size.x % size.y, rank / (size.x * size.y)};
      threads_[rank] = {index, rank, rank % warp_size, rank / warp_size};
    }
    warps_.resize((count + warp_size - 1) / warp_size);
  }
  slots_.assign(count, Slot{});
  for (unsigned w = 0; w < warps_.size(); ++w) {
    const unsigned lanes = std::min(warp_size, count - w * warp_size);
    warps_[w].live = lanes == warp_size ? ~0u : (1u << lanes) - 1;
  }
  while (fiber_per_thread && fibers_.size() < count) fibers_.push_back(std::make_unique<Context>(serve));
  live_ = count;
  waiting_.clear();
  waiting_.reserve(count);
  ready_.reserve(many_taken + 2 * count);  // to grow on a fiber would look to the race detector like a race of `free`s
  ready_.resize(count);
  for (unsigned i = 0; i < count; ++i) ready_[i] = order == Order::backward ? count - 1 - i : i;
  next_ = 0;
  order_ = order;
  random_ = seed * 0x9e3779b97f4a7c15u + 1;
}

// After an error: what waits on the stacks will never go on.
void Scheduler::forget_fibers() {
  idle_.clear();
  fibers_.clear();
  warps_.clear();
  threads_.clear();
  block_ = {};
}

// The first function on every stack.
void Scheduler::serve() {
  Context::entered();
  Scheduler& self = instance();
  for (;;) {
    Context& fiber = *self.current_;
    try {
      receive(block_order);
      (*self.kernel_)();
      publish(block_order);
      self.end_thread();
    } catch (...) {
      self.error_ = std::current_exception();
    }
    if (self.error_) Context::change(fiber, self.caller_);
    if (!fiber_per_thread) self.idle_.push_back(&fiber);
    self.dispatch(fiber);
  }
}

// A thread that has not started takes the fiber that became idle last, which may be the running one: as long as nobody
// waits, the threads of a block run one after another without leaving it.
Context& Scheduler::fiber_for(unsigned rank) {
  Context*& fiber = slots_[rank].fiber;
  if (fiber) return *fiber;
  if (fiber_per_thread) return *(fiber = fibers_[rank].get());
  if (idle_.empty()) {
    fibers_.push_back(std::make_unique<Context>(serve));
    return *(fiber = fibers_.back().get());
  }
  fiber = idle_.back();
  idle_.pop_back();
  return *fiber;
}

void Scheduler::make_ready(unsigned rank) {
  if (next_ >= many_taken) {
    ready_.erase(ready_.begin(), ready_.begin() + long(next_));
    next_ = 0;
  }
  ready_.push_back(rank);
}

unsigned Scheduler::take_ready() {
  if (order_ == Order::shuffled) {
    const size_t chosen = next_ + next_random(random_) % (ready_.size() - next_);
    std::swap(ready_[next_], ready_[chosen]);
  }
  return ready_[next_++];
}

// Goes on with the next ready thread, or with the caller of run_block.
void Scheduler::dispatch(Context& from) {
  if (next_ == ready_.size()) {
    Context::change(from, caller_);
    return;
  }
  const unsigned rank = take_ready();
  current_ = &fiber_for(rank);
  running = &threads_[rank];
  if (current_ != &from) Context::change(from, *current_);
}

// Lets others run until the running thread is ready again.
void Scheduler::leave() { dispatch(*current_); }

void Scheduler::end_thread() {
  const unsigned warp = running->warp;
  --live_;
  if (!waiting_.empty() && block_.arrived == live_) end_block_meeting();
  warps_[warp].live &= ~(1u << running->lane);
  for (Meeting& meeting : warps_[warp].meetings) {
    if (meeting.arrived && meeting.arrived == (meeting.mask & warps_[warp].live)) end_warp_meeting(meeting, warp);
  }
}

unsigned Scheduler::sync_block(bool predicate, Location here) {
  const unsigned rank = running->rank;
  check_same_place(waiting_.empty(), block_.site, here);
  block_.site = here;
  ++block_.arrived;
  block_.trues += predicate;
  waiting_.push_back(rank);
  char& order = block_.order[block_.phase & 1];
  publish(order);
  if (block_.arrived == live_) end_block_meeting();
  leave();
  receive(order);
  return unsigned(slots_[rank].value);
}

void Scheduler::end_block_meeting() {
  for (unsigned rank : waiting_) {
    slots_[rank].value = block_.trues;
    make_ready(rank);
  }
  waiting_.clear();
  block_.arrived = block_.trues = 0;
  ++block_.phase;
}

Scheduler::Meeting& Scheduler::meeting_of(unsigned mask) {
  Warp& warp = warps_[running->warp];
  for (Meeting& meeting : warp.meetings) {
    if (meeting.mask == mask) return meeting;
  }
  Meeting& meeting = warp.meetings.emplace_back();
  meeting.mask = mask;
  return meeting;
}

uint64_t Scheduler::meet_warp(unsigned mask, uint64_t value, unsigned source, bool orders_memory, Location here) {
  const unsigned lane = running->lane, warp = running->warp;
  if (!(mask >> lane & 1)) throw Error("the mask lacks the calling lane at " + text_of(here));
  Slot& slot = slots_[running->rank];
  slot.value = value;
  slot.source = source;
  Meeting& meeting = meeting_of(mask);
  check_same_place(meeting.arrived == 0, meeting.site, here);
  meeting.site = here;
  meeting.arrived |= 1u << lane;
  char& order = meeting.order[meeting.phase & 1];
  if (orders_memory) publish(order);
  if (meeting.arrived == (mask & warps_[warp].live)) end_warp_meeting(meeting, warp);
  leave();
  if (orders_memory) receive(order);
  return slot.value;
}

void Scheduler::end_warp_meeting(Meeting& meeting, unsigned warp) {
  Slot* lanes = &slots_[warp * warp_size];
  uint64_t given[warp_size];
  unsigned votes = 0;
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    if (!(meeting.arrived >> lane & 1)) continue;
    given[lane] = lanes[lane].value;
    votes |= (lanes[lane].value != 0 ? 1u : 0u) << lane;
  }
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    if (!(meeting.arrived >> lane & 1)) continue;
    const unsigned source = lanes[lane].source;
    const bool takes_part = source < warp_size && meeting.arrived >> source & 1;
    lanes[lane].value = source == every_lane ? votes : takes_part ? given[source] : ~uint64_t(0);
    make_ready(warp * warp_size + lane);
  }
  meeting.arrived = 0;
  ++meeting.phase;
}

void Scheduler::sync_warp(unsigned mask, Location here) { meet_warp(mask, 0, every_lane, true, here); }

// Shuffles and votes promise nothing about the order of memory accesses.
uint64_t Scheduler::exchange(unsigned mask, uint64_t value, unsigned source, Location here) {
  return meet_warp(mask, value, source, false, here);
}

unsigned Scheduler::ballot(unsigned mask, bool predicate, Location here) {
  return unsigned(meet_warp(mask, predicate, every_lane, false, here));
}

Error Scheduler::deadlock() const {
  std::ostringstream text;
  text << "deadlock: " << live_ << " threads of the block wait for others that never come";
  if (block_.arrived) text << "; " << block_.arrived << " at " << text_of(block_.site);
  for (const Warp& warp : warps_) {
    for (const Meeting& meeting : warp.meetings) {
      if (meeting.arrived == 0) continue;
      text << "; lanes " << std::hex << meeting.arrived << std::dec << " at " << text_of(meeting.site);
    }
  }
  return Error(text.str());
}

}  // namespace simt

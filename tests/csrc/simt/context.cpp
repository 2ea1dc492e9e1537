#include "context.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#include "simt.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(SIMT_RACES)
#include <sanitizer/tsan_interface.h>
#endif

#if defined(__x86_64__)
// Saves the registers that a call preserves on the old stack and takes them from the new one. Six times faster than
// swapcontext, which makes a system call for the signal mask.
extern "C" void simt_change_stack(void** old_top, void* new_top);
asm(R"(
  .text
  .type simt_change_stack, @function
simt_change_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size simt_change_stack, .-simt_change_stack
)");
#endif

namespace simt {
namespace {

constexpr size_t stack_bytes = 256 << 10;  // touched pages only are taken from the system

// Unused bytes at the far end of the next stack. With all stacks alike, the ends of all would compete for the same few
// places of the processor's caches.
size_t stagger() {
  constexpr size_t cache_line = 64, places = 127;
  static size_t count = 0;
  return count++ % places * cache_line;
}

#if defined(__SANITIZE_ADDRESS__)
// The context that was left last, to which AddressSanitizer's view of the stack is still to be saved.
const void* caller_stack = nullptr;
size_t caller_bytes = 0;
#endif

}  // namespace

Context::Context() {
#if defined(SIMT_RACES)
  fiber_ = __tsan_get_current_fiber();
#endif
}

Context::Context(void (*entry)()) : bytes_(stack_bytes) {
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, page + bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, page, PROT_NONE);
  stack_ = static_cast<unsigned char*>(memory) + page;
#if defined(__x86_64__)
  // As simt_change_stack leaves a stack: six registers, then the address to return to. At a function's first
  // instruction, 8 bytes are missing to a multiple of 16.
  constexpr int registers = 6;
  auto** top = reinterpret_cast<void**>(stack_ + bytes_ - stagger()) - 2;
  *top = reinterpret_cast<void*>(entry);
  top_ = top - registers;
#else
  getcontext(&state_);
  state_.uc_stack.ss_sp = stack_;
  state_.uc_stack.ss_size = bytes_;
  state_.uc_link = nullptr;
  makecontext(&state_, entry, 0);
#endif
#if defined(SIMT_RACES)
  fiber_ = __tsan_create_fiber(0);
#endif
}

Context::~Context() {
  if (stack_ == nullptr) return;
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  munmap(stack_ - page, page + bytes_);
#if defined(SIMT_RACES)
  __tsan_destroy_fiber(fiber_);
#endif
}

// Never inlined, and the compiler cannot see through the assembler: what the caller holds in memory is read anew after.
__attribute__((noinline)) void Context::change(Context& from, Context& to) {
#if defined(SIMT_RACES)
  // Without this flag everything before would count as ordered with everything after.
  __tsan_switch_to_fiber(to.fiber_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  if (to.stack_ == nullptr) {
    __sanitizer_start_switch_fiber(&from.fake_stack_, caller_stack, caller_bytes);
  } else {
    __sanitizer_start_switch_fiber(&from.fake_stack_, to.stack_, to.bytes_);
  }
#endif
#if defined(__x86_64__)
  simt_change_stack(&from.top_, to.top_);
  asm volatile("" ::: "memory");
#else
  swapcontext(&from.state_, &to.state_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#endif
}

void Context::entered() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  // The first fiber of all is entered from the caller's stack.
  if (caller_stack == nullptr) caller_stack = bottom, caller_bytes = bytes;
#endif
}

}  // namespace simt

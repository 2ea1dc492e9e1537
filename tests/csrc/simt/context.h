// A place on a stack of its own that execution can leave and come back to.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

class Context {
 public:
  // The caller's own stack; first left, then come back to.
  Context();

  // A new stack, on which `entry` starts at the first switch. It must not return.
  explicit Context(void (*entry)());

  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // Leaves `from`, which must be the running one, and goes on where `to` was left.
  static void change(Context& from, Context& to);

  // To be called first by `entry`.
  static void entered();

 private:
  unsigned char* stack_ = nullptr;  // lowest byte, above a page that traps
  size_t bytes_ = 0;
#if defined(__x86_64__)
  void* top_ = nullptr;  // stack pointer where it was left
#else
  ucontext_t state_;
#endif
  void* fiber_ = nullptr;       // what ThreadSanitizer knows it as
  void* fake_stack_ = nullptr;  // AddressSanitizer's
};

}  // namespace simt

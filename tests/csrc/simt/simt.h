// Runs CUDA kernel sources on the CPU, for tests: `launch` and what a test sets before it.
//
// A .cu file is compiled as C++ with this folder first on the include path, so that it finds our cuda_runtime.h. Blocks
// run one after another on the calling thread; the threads of a block are fibers, which change places at barriers and
// warp intrinsics only. The order in which they run is a parameter, the schedule: a correct kernel gives the same bits
// under each.
//
// What a GPU would do silently, or never finish, is an `Error` here: a deadlock, barriers or warp intrinsics reached
// from different lines, blocks and grids that no device takes. Shared memory is filled with NaN before each block.
//
// Not emulated: <<<>>> and `extern __shared__` (common/cuda.cuh wraps both), streams (a launch is synchronous),
// cooperative groups, inline PTX, tensor cores, asynchronous copies, blocks that wait for each other. Races between
// blocks and missing fences are not noticed.
#pragma once

#include <cstddef>
#include <functional>
#include <stdexcept>

#include "vector_types.h"

namespace simt {

constexpr unsigned warp_size = 32;

struct Error : std::runtime_error {
  using runtime_error::runtime_error;
};

// Calls `thread` once for each thread of every block. `kernel`, the address of the kernel's function, is for observers.
void launch(dim3 grid, dim3 block, size_t dynamic_shared_bytes, const std::function<void()>& thread,
            const void* kernel = nullptr);

// The dynamic shared memory of the running block.
void* dynamic_shared();

// Order of threads and of blocks: 0 forward, 1 backward, 2 and more shuffled. At first the environment variable
// SIMT_SCHEDULE, or 0.
void set_schedule(unsigned schedule);

// From now on, the barrier on this line does nothing: a mutant of the kernel. An empty file name ends it.
void skip_barrier(const char* file_name, unsigned line);

// How many times a thread came to the barrier that is skipped.
unsigned long skipped_barriers();

// Told what runs; the memory trace is one.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void launch_begins(const void* kernel, dim3 grid, dim3 block, size_t dynamic_shared_bytes) = 0;
  virtual void block_ends() = 0;
};
void set_observer(Observer* observer);

// Bytes that hold the shared memory of the running block: dynamic, and static where it is kept in one place.
struct Range {
  unsigned char* begin = nullptr;
  size_t bytes = 0;
  bool contains(const void* address) const {
    return size_t(static_cast<const unsigned char*>(address) - begin) < bytes;
  }
};
Range dynamic_shared_range();
Range static_shared_range();

}  // namespace simt

// What the warps of emulated kernels ask of memory, and how often each stretch of their instructions runs.
//
// The kernels are compiled with GCC's instrumentation for the race detector, which calls `__tsan_read4(address)` and so
// on before every access, and with that for coverage, which calls `__sanitizer_cov_trace_pc()` at the start of every
// basic block. Here the calls are answered by counters. The accesses of a warp's lanes that come from one place in the
// code, each lane for the n-th time, make one request, as they do on a GPU.
#pragma once

#include <cstdint>
#include <vector>

#include "cases.h"
#include "simt.h"

namespace pygan::test {

struct Launch {
  const void* kernel;  // its function
  unsigned threads;    // of a block
  size_t dynamic_shared_bytes;
};

struct Counts {
  std::vector<Launch> launches;
  uint64_t read_sectors = 0;      // of 32 bytes, asked for by requests to global memory
  uint64_t written_sectors = 0;
  uint64_t ideal_sectors = 0;  // as many as the requested bytes would fill
  uint64_t block_sectors = 0;  // those of both, each counted once in a block: what a cache of the block's own leaves
  uint64_t wavefronts = 0;        // passes over the 32 banks that the requests to shared memory take
  uint64_t ideal_wavefronts = 0;  // as many as their words would need without conflicts
};

class MemoryTrace : public simt::Observer {
 public:
  // The state is global, as the instrumentation knows no object; one trace at a time.
  explicit MemoryTrace(const Memory& memory);
  ~MemoryTrace() override;

  void launch_begins(const void* kernel, dim3 grid, dim3 block, size_t dynamic_shared_bytes) override;
  void block_ends() override;

  const Counts& counts() const;

  // Return addresses of the calls at the starts of basic blocks, and how often each was made.
  std::vector<std::pair<uintptr_t, uint64_t>> stretches() const;
};

}  // namespace pygan::test

// The running thread and its surroundings, as the built-in variables and intrinsics of a kernel see them.
#pragma once

#include <cstdint>
#include <source_location>

#include "simt.h"

namespace simt {

using Location = std::source_location;

struct Thread {
  uint3 index;     // threadIdx
  unsigned rank;   // in the block
  unsigned lane, warp;
};

struct Grid {
  dim3 size, block_size;
  uint3 block_index;
};

// Written by the emulator alone; one launch runs at a time.
extern const Thread* running;
extern Grid grid;

// Waits for the other threads of the block; returns in how many of them `predicate` holds.
unsigned sync_block(bool predicate, Location here);

// Waits for the threads of the warp that `mask` names and that have not ended.
void sync_warp(unsigned mask, Location here);

// As sync_warp; returns the `value` of lane `source`, or a pattern of ones where that lane takes no part.
uint64_t exchange(unsigned mask, uint64_t value, unsigned source, Location here);

// As sync_warp; returns a bit for each lane whose `predicate` holds.
unsigned ballot(unsigned mask, bool predicate, Location here);

}  // namespace simt

// What a kernel file expects of CUDA's header of this name, as far as the emulator has it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "intrinsics.h"
#include "simt.h"
#include "state.h"
#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)  // compared with the launches by the report on the compiled kernels
#define __restrict__ __restrict
#define __align__(bytes) alignas(bytes)

// Blocks run one after another, so one copy is enough. All thread-local variables of a program lie side by side: so the
// emulator finds them, and fills them with NaN before each block. Sanitizers guard global variables better.
#if defined(__SANITIZE_ADDRESS__) || defined(SIMT_RACES)
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

#define threadIdx (simt::running->index)
#define blockIdx (static_cast<const uint3&>(simt::grid.block_index))
#define blockDim (static_cast<const dim3&>(simt::grid.block_size))
#define gridDim (static_cast<const dim3&>(simt::grid.size))
constexpr int warpSize = simt::warp_size;

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }

// What a header needs so that the host compiler and nvcc both read it.
#pragma once

// Always inlined: an inline function left as a symbol could be emitted once per instruction set, and the linker would
// keep any one of the copies, also on a processor that lacks its instructions.
#ifdef __CUDACC__
#define PYGAN_HD __host__ __device__ __forceinline__
#else
#define PYGAN_HD inline __attribute__((always_inline))
#endif

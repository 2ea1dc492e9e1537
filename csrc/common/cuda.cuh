// What the `_cuda.cu` files share: launching, shared memory, vectors of elements. The host compiler reads it too, with
// the emulator of tests/csrc/simt in place of the CUDA headers; so kernels keep to what that emulates: no cooperative
// groups, no inline PTX, no tensor cores.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <stdexcept>
#include <string>

#include "common/dtype.h"

// T* name: the dynamic shared memory of the block, whose size is an argument of `launch`.
#ifdef __CUDACC__
#define PYGAN_DYNAMIC_SHARED(T, name)                          \
  extern __shared__ __align__(16) unsigned char name##_raw[]; \
  T* name = reinterpret_cast<T*>(name##_raw)
#else
#define PYGAN_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(simt::dynamic_shared())
#endif

namespace pygan {

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

// kernel<<<grid, block, shared_bytes, stream>>>(args...), which a C++ compiler cannot parse.
template <class... Parameters, class... Args>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, void* stream, Args... args) {
#ifdef __CUDACC__
  constexpr size_t always_allowed = 48 << 10;
  if (shared_bytes > always_allowed) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)));
  }
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(static_cast<Parameters>(args)...);
  check(cudaGetLastError());
#else
  (void)stream;
  simt::launch(
      grid, block, shared_bytes, [&] { kernel(static_cast<Parameters>(args)...); },
      reinterpret_cast<const void*>(kernel));
#endif
}

// `n` elements that are read or written at once; the address must be a multiple of the size.
template <class T, int n>
struct alignas(sizeof(T) * n) Vector {
  T element[n];
};

// Elements in the widest access, 16 bytes.
template <class T>
constexpr int vector_size = 16 / int(sizeof(T));

inline bool is_aligned(const void* pointer, size_t bytes) { return reinterpret_cast<size_t>(pointer) % bytes == 0; }

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace pygan

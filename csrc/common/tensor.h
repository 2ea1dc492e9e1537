// What the `_torch.cpp` files share: reading libtorch's stable tensors, choosing the device, registering kernels.
//
// The files are compiled for the extension and, with PYGAN_SIMT, for the tests' emulated library: there the CUDA kernels
// run on the CPU, under another namespace.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>

#include "common/dtype.h"

#ifdef PYGAN_SIMT
#define PYGAN_NAMESPACE pygan_simt
#else
#define PYGAN_NAMESPACE pygan
#endif

// Registers what `implement(m)` lists as the CPU and, where they were built, the CUDA kernels.
#ifdef PYGAN_CUDA
#define PYGAN_REGISTER(implement)                                       \
  STABLE_TORCH_LIBRARY_IMPL(PYGAN_NAMESPACE, CPU, m) { implement(m); } \
  STABLE_TORCH_LIBRARY_IMPL(PYGAN_NAMESPACE, CUDA, m) { implement(m); }
#else
#define PYGAN_REGISTER(implement) \
  STABLE_TORCH_LIBRARY_IMPL(PYGAN_NAMESPACE, CPU, m) { implement(m); }
#endif

namespace pygan {

#ifdef PYGAN_SIMT
constexpr bool has_cpu_kernels = false, has_cuda_kernels = true;
#elif defined(PYGAN_CUDA)
constexpr bool has_cpu_kernels = true, has_cuda_kernels = true;
#else
constexpr bool has_cpu_kernels = true, has_cuda_kernels = false;
#endif

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Dtype dtype_of(const Tensor& x, const char* op) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return Dtype::f32;
    case ScalarType::Double: return Dtype::f64;
    case ScalarType::Half: return Dtype::f16;
    case ScalarType::BFloat16: return Dtype::bf16;
    default: STD_TORCH_CHECK(false, op, ": expected float32, float64, float16 or bfloat16");
  }
}

// True where the CUDA kernels serve x.
inline bool on_cuda(const Tensor& x) { return has_cuda_kernels && (!has_cpu_kernels || x.is_cuda()); }

// Makes the device of a CUDA tensor the current one as long as it lives.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const Tensor& x) {
    if (!x.is_cuda()) return;  // emulated
    guard_.emplace(x.get_device_index());
    stream_ = torch::stable::accelerator::getCurrentStream(x.get_device_index()).nativeHandle();
  }

  void* stream() const { return stream_; }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  void* stream_ = nullptr;
};

inline bool same_strides(const Tensor& a, const Tensor& b) {
  for (int64_t i = 0; i < a.dim(); ++i) {
    if (a.stride(i) != b.stride(i)) return false;
  }
  return true;
}

}  // namespace pygan

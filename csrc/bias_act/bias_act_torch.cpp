// bias_act and its gradient as torch operators: schemas, checks and threads.
#include <torch/csrc/stable/library.h>

#include <limits>
#include <optional>

#include "bias_act/bias_act.h"
#include "common/tensor.h"

namespace pygan {
namespace {

constexpr int64_t elements_per_thread = 1 << 15;

// `like` with the strides of `target`, copied only where they differ.
Tensor with_strides_of(const Tensor& target, const Tensor& like) {
  if (same_strides(target, like)) return like;
  Tensor copy = torch::stable::empty_like(target);
  return torch::stable::copy_(copy, like);
}

Tensor run(const std::optional<Tensor>& dy, const Tensor& x, const std::optional<Tensor>& b, int64_t dim, int64_t act,
           double alpha, double gain, double clamp) {
  const Dtype dtype = dtype_of(x, "bias_act");
  STD_TORCH_CHECK(0 <= act && act <= int64_t(Activation::swish), "bias_act: unknown activation number ", act);
  Tensor y = torch::stable::empty_like(x);  // dense, in the order of x's dimensions in memory
  if (y.numel() == 0) return y;

  const Tensor dense_x = with_strides_of(y, x);
  BiasActParams p{dense_x.const_data_ptr(), nullptr, nullptr, y.mutable_data_ptr(), 1, y.numel(), dtype,
                  Activation(act),          alpha,   gain,    clamp < 0 ? std::numeric_limits<double>::infinity() : clamp};
  std::optional<Tensor> dense_b, dense_dy;
  if (b) {
    STD_TORCH_CHECK(0 <= dim && dim < x.dim(), "bias_act: dim is out of range");
    STD_TORCH_CHECK(b->dim() == 1 && b->size(0) == x.size(dim) && b->scalar_type() == x.scalar_type(),
                    "bias_act: b must be a vector with x's dtype and one element per channel");
    dense_b = torch::stable::contiguous(*b);
    p.b = dense_b->const_data_ptr();
    p.channels = b->size(0);
    // The stride of a dimension of one element means nothing.
    p.inner = p.channels == 1 ? y.numel() : y.stride(dim);
  }
  if (dy) {
    STD_TORCH_CHECK(dy->sizes() == x.sizes() && dy->scalar_type() == x.scalar_type(),
                    "bias_act_grad: dy must have the shape and dtype of x");
    dense_dy = with_strides_of(y, *dy);
    p.dy = dense_dy->const_data_ptr();
  }
  const auto kernel = PYGAN_BEST_ISA(bias_act_cpu);
  torch::stable::parallel_for(0, y.numel(), elements_per_thread,
                              [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
  return y;
}

Tensor bias_act(Tensor x, std::optional<Tensor> b, int64_t dim, int64_t act, double alpha, double gain, double clamp) {
  return run(std::nullopt, x, b, dim, act, alpha, gain, clamp);
}

Tensor bias_act_grad(Tensor dy, Tensor x, std::optional<Tensor> b, int64_t dim, int64_t act, double alpha, double gain,
                     double clamp) {
  return run(dy, x, b, dim, act, alpha, gain, clamp);
}

}  // namespace
}  // namespace pygan

STABLE_TORCH_LIBRARY_FRAGMENT(pygan, m) {
  m.def("bias_act(Tensor x, Tensor? b, int dim, int act, float alpha, float gain, float clamp) -> Tensor");
  m.def(
      "bias_act_grad(Tensor dy, Tensor x, Tensor? b, int dim, int act, float alpha, float gain, float clamp) "
      "-> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pygan, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&pygan::bias_act));
  m.impl("bias_act_grad", TORCH_BOX(&pygan::bias_act_grad));
}

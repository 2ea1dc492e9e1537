// bias_act and its gradient as torch operators: schemas, checks and threads.
#include <iterator>
#include <limits>
#include <optional>
#include <tuple>

#include "bias_act/bias_act.h"
#include "common/tensor.h"

namespace pygan {
namespace {

constexpr int64_t elements_per_thread = 1 << 15;

// `source` with the strides of `target`, copied only where they differ.
Tensor with_strides_of(const Tensor& target, const Tensor& source) {
  if (same_strides(target, source)) return source;
  Tensor copy = torch::stable::empty_like(target);
  return torch::stable::copy_(copy, source);
}

// Parameters but for the pointers. Where `with_channels`, the tensor `y` is cut at `dim`.
BiasActParams describe(const char* op, const Tensor& y, bool with_channels, int64_t dim, int64_t act, double alpha,
                       double gain, double clamp) {
  BiasActParams p{};
  p.dtype = dtype_of(y, op);
  STD_TORCH_CHECK(0 <= act && act <= int64_t(Activation::swish), op, ": unknown activation number ", act);
  STD_TORCH_CHECK(alpha >= 0 && gain > 0, op, ": expected alpha of at least 0 and gain above 0");
  STD_TORCH_CHECK(!with_channels || (0 <= dim && dim < y.dim()), op, ": dim is out of range");
  p.size = y.numel();
  p.channels = with_channels ? y.size(dim) : 1;
  p.inner = p.channels == 1 ? p.size : y.stride(dim);  // the stride of a dimension of one element means nothing
  p.act = Activation(act);
  p.alpha = alpha;
  p.gain = gain;
  p.clamp = clamp < 0 ? std::numeric_limits<double>::quiet_NaN() : clamp;
  return p;
}

// Checked, with its elements side by side.
Tensor dense_bias(const char* op, const Tensor& x, const Tensor& b, int64_t dim) {
  STD_TORCH_CHECK(b.dim() == 1 && b.size(0) == x.size(dim) && b.scalar_type() == x.scalar_type(), op,
                  ": b must be a vector with x's dtype and one element per channel");
  return b.stride(0) == 1 ? b : torch::stable::contiguous(b);
}

void run_on_cpu(const BiasActParams& p, const BiasActTiling& tiling) {
  const auto kernel = PYGAN_BEST_ISA(bias_act_cpu);
  const auto units = [&](int64_t begin, int64_t end) { kernel(p, tiling, begin, end); };
  const int64_t units_per_thread = elements_per_thread * tiling.units / p.size;
  if (units_per_thread >= tiling.units) {
    units(0, tiling.units);
  } else {
    torch::stable::parallel_for(0, tiling.units, units_per_thread > 0 ? units_per_thread : 1, units);
  }
  if (p.db) PYGAN_BEST_ISA(bias_act_sum_cpu)(p, tiling);
}

void run(BiasActParams& p, const Tensor& x) {
  Tensor workspace;
  alignas(64) double small_workspace[1024];  // an allocation takes longer than the sums of a small tensor
  const auto make_workspace = [&](int64_t elements) {
    const ScalarType dtype = p.dtype == Dtype::f64 ? ScalarType::Double : ScalarType::Float;
    workspace = torch::stable::new_empty(x, {elements}, dtype);
    p.partial = workspace.mutable_data_ptr();
  };
  if (on_cuda(x)) {
    if constexpr (has_cuda_kernels) {
      const OnDeviceOf device(x);
      if (p.db) make_workspace(bias_act_cuda_workspace(p));
      bias_act_cuda(p, device.stream());
    }
  } else if constexpr (has_cpu_kernels) {
    const BiasActTiling tiling = bias_act_tiling(p);
    const int64_t sums = p.db ? tiling.slices * p.channels : 0;
    if (sums > int64_t(std::size(small_workspace))) {
      make_workspace(sums);
    } else if (sums > 0) {
      p.partial = small_workspace;
    }
    run_on_cpu(p, tiling);
  }
}

Tensor bias_act(Tensor x, std::optional<Tensor> b, int64_t dim, int64_t act, double alpha, double gain, double clamp) {
  Tensor y = torch::stable::empty_like(x);  // dense, in the order of x's dimensions in memory
  BiasActParams p = describe("bias_act", y, b.has_value(), dim, act, alpha, gain, clamp);
  std::optional<Tensor> dense_b;
  if (b) {
    dense_b = dense_bias("bias_act", x, *b, dim);
    p.b = dense_b->const_data_ptr();
  }
  if (p.size == 0) return y;
  const Tensor dense_x = with_strides_of(y, x);
  p.x = dense_x.const_data_ptr();
  p.y = y.mutable_data_ptr();
  run(p, x);
  return y;
}

std::tuple<Tensor, Tensor> bias_act_grad(Tensor dy, Tensor saved, std::optional<Tensor> b, int64_t dim, int64_t act,
                                         double alpha, double gain, double clamp, bool needs_db) {
  Tensor dx = torch::stable::empty_like(saved);
  BiasActParams p = describe("bias_act_grad", dx, b || needs_db, dim, act, alpha, gain, clamp);
  STD_TORCH_CHECK(dy.sizes() == saved.sizes() && dy.scalar_type() == saved.scalar_type(),
                  "bias_act_grad: dy must have the shape and dtype of the saved tensor");
  std::optional<Tensor> dense_b;
  if (b) {
    dense_b = dense_bias("bias_act_grad", saved, *b, dim);
    p.b = dense_b->const_data_ptr();
  }
  Tensor db = torch::stable::new_empty(saved, {needs_db ? saved.size(dim) : 0});
  if (p.size == 0) return {dx, needs_db ? torch::stable::zero_(db) : db};
  const Tensor dense_saved = with_strides_of(dx, saved), dense_dy = with_strides_of(dx, dy);
  p.x = dense_saved.const_data_ptr();
  p.dy = dense_dy.const_data_ptr();
  p.y = dx.mutable_data_ptr();
  if (needs_db) p.db = db.mutable_data_ptr();
  run(p, saved);
  return {dx, db};
}

void kernels(auto& m) {
  m.impl("bias_act", TORCH_BOX(&bias_act));
  m.impl("bias_act_grad", TORCH_BOX(&bias_act_grad));
}

}  // namespace
}  // namespace pygan

STABLE_TORCH_LIBRARY_FRAGMENT(PYGAN_NAMESPACE, m) {
  m.def("bias_act(Tensor x, Tensor? b, int dim, int act, float alpha, float gain, float clamp) -> Tensor");
  m.def(
      "bias_act_grad(Tensor dy, Tensor saved, Tensor? b, int dim, int act, float alpha, float gain, float clamp, "
      "bool needs_db) -> (Tensor dx, Tensor db)");
}

PYGAN_REGISTER(pygan::kernels)

// The parts of the modulated convolution as torch operators: schemas, checks, layouts and threads.
#include <limits>
#include <optional>
#include <tuple>

#include "common/tensor.h"
#include "modulated_conv2d/modulated_conv2d.h"

namespace pygan {
namespace {

using torch::headeronly::MemoryFormat;

constexpr int64_t elements_per_thread = 1 << 15;

bool is_channels_last(const Tensor& x) { return x.stride(1) == 1 && x.size(1) > 1; }

MemoryFormat format(bool channels_last) {
  return channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

Tensor dense(const Tensor& x, bool channels_last) { return torch::stable::contiguous(x, format(channels_last)); }

Tensor new_picture(const Tensor& x, bool channels_last) {
  return torch::stable::empty(x.sizes(), x.scalar_type(), std::nullopt, x.device(), std::nullopt,
                              format(channels_last));
}

ScalarType accumulator(Dtype dtype) { return dtype == Dtype::f64 ? ScalarType::Double : ScalarType::Float; }

// What forward and gradient are called with, checked and dense; keeps alive what the parameters point to.
struct Inputs {
  Tensor x;
  std::optional<Tensor> d, noise, b;
  ModulatedBiasActParams params;

  Inputs(const Tensor& input, const std::optional<Tensor>& d_, const std::optional<Tensor>& noise_,
         const std::optional<Tensor>& b_, int64_t act, double alpha, double gain, double clamp, bool y_channels_last) {
    const Dtype dtype = dtype_of(input, "modulated_bias_act");
    STD_TORCH_CHECK(input.dim() == 4, "modulated_bias_act: x must have 4 dimensions");
    STD_TORCH_CHECK(0 <= act && act <= int64_t(Activation::swish), "modulated_bias_act: unknown activation number ",
                    act);
    const int64_t n = input.size(0), c = input.size(1), h = input.size(2), w = input.size(3);
    const auto read = [&](const std::optional<Tensor>& t, bool fits, const char* error) -> std::optional<Tensor> {
      if (!t) return std::nullopt;
      STD_TORCH_CHECK(fits && t->scalar_type() == accumulator(dtype), error);
      return torch::stable::contiguous(*t);
    };
    d = read(d_, d_ && d_->dim() == 2 && d_->size(0) == n && d_->size(1) == c,
             "modulated_bias_act: d must be [batch, channels] in float32, or with a float64 x in float64");
    noise = read(noise_,
                 noise_ && noise_->dim() == 4 && (noise_->size(0) == 1 || noise_->size(0) == n) &&
                     noise_->size(1) == 1 && noise_->size(2) == h && noise_->size(3) == w,
                 "modulated_bias_act: noise must be [batch or 1, 1, height, width] in float32, or with a float64 x in "
                 "float64");
    b = read(b_, b_ && b_->dim() == 1 && b_->size(0) == c,
             "modulated_bias_act: b must be [channels] in float32, or with a float64 x in float64");
    const bool channels_last = is_channels_last(input);
    x = dense(input, channels_last);
    params = {.x = x.const_data_ptr(),
              .d = d ? d->const_data_ptr() : nullptr,
              .noise = noise ? noise->const_data_ptr() : nullptr,
              .b = b ? b->const_data_ptr() : nullptr,
              .y = nullptr,
              .batch = n,
              .channels = c,
              .pixels = h * w,
              .noise_stride = noise && noise->size(0) == n ? h * w : 0,
              .x_channels_last = channels_last,
              .y_channels_last = y_channels_last,
              .dtype = dtype,
              .act = Activation(act),
              .alpha = alpha,
              .gain = gain,
              .clamp = clamp < 0 ? std::numeric_limits<double>::infinity() : clamp};
  }
};

// Samples' stretches of pixels, shared out among the threads.
template <class F>
void parallel_units(const ModulatedBiasActParams& p, F&& fn) {
  const int64_t units = p.batch * pixel_blocks_cpu(p.pixels);
  const int64_t elements = p.channels * (p.pixels < pixels_per_unit ? p.pixels : pixels_per_unit);
  torch::stable::parallel_for(0, units, 1 + elements_per_thread / elements, fn);
}

Tensor modulated_bias_act(Tensor x, std::optional<Tensor> d, std::optional<Tensor> noise, std::optional<Tensor> b,
                          int64_t act, double alpha, double gain, double clamp, bool channels_last) {
  Inputs in(x, d, noise, b, act, alpha, gain, clamp, channels_last);
  ModulatedBiasActParams& p = in.params;
  if (x.numel() == 0) return new_picture(x, channels_last);
  if (on_cuda(x)) {
    Tensor y = new_picture(x, p.x_channels_last);
    if constexpr (has_cuda_kernels) {
      const OnDeviceOf device(x);
      p.y = y.mutable_data_ptr();
      modulated_bias_act_cuda(p, device.stream());
    }
    return dense(y, channels_last);
  }
  Tensor y = new_picture(x, channels_last);
  if constexpr (has_cpu_kernels) {
    p.y = y.mutable_data_ptr();
    const auto kernel = PYGAN_BEST_ISA(modulated_bias_act_cpu);
    parallel_units(p, [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
  }
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> modulated_bias_act_grad(Tensor dy, Tensor x, std::optional<Tensor> d,
                                                                   std::optional<Tensor> noise,
                                                                   std::optional<Tensor> b, int64_t act, double alpha,
                                                                   double gain, double clamp) {
  STD_TORCH_CHECK(dy.sizes() == x.sizes() && dy.scalar_type() == x.scalar_type(),
                  "modulated_bias_act_grad: dy must have the shape and dtype of x");
  Inputs in(x, d, noise, b, act, alpha, gain, clamp, is_channels_last(dy));
  ModulatedBiasActGradParams g{};
  g.forward = in.params;
  ModulatedBiasActParams& p = g.forward;

  const ScalarType sums = accumulator(p.dtype);
  const bool empty = x.numel() == 0;
  const auto new_sums = [&](std::initializer_list<int64_t> sizes) { return torch::stable::new_empty(x, sizes, sums); };
  const auto output = [&](bool wanted, std::initializer_list<int64_t> sizes) {
    return !wanted ? new_sums({0}) : empty ? torch::stable::new_zeros(x, sizes, sums) : new_sums(sizes);
  };
  Tensor dd = output(d.has_value(), {p.batch, p.channels});
  Tensor dnoise = output(noise.has_value(), {p.batch, 1, x.size(2), x.size(3)});
  Tensor db = output(b.has_value(), {p.channels});
  if (empty) return {new_picture(x, p.x_channels_last), dd, dnoise, db};

  if (on_cuda(x)) p.y_channels_last = p.x_channels_last;
  const Tensor dense_dy = dense(dy, p.y_channels_last);
  g.dy = dense_dy.const_data_ptr();
  if (d) g.dd = dd.mutable_data_ptr();
  if (noise) g.dnoise = dnoise.mutable_data_ptr();
  if (b) g.db = db.mutable_data_ptr();
  if (on_cuda(x)) {
    if constexpr (has_cuda_kernels) grad_blocks_cuda(g);
  } else {
    g.pixel_blocks = pixel_blocks_cpu(p.pixels);
  }
  Tensor channel_parts = new_sums({p.batch, g.pixel_blocks, 2, p.channels});
  Tensor pixel_parts = new_sums({p.batch, noise ? g.channel_blocks : 0, p.pixels});
  g.channel_parts = channel_parts.mutable_data_ptr();
  g.pixel_parts = pixel_parts.mutable_data_ptr();
  // The last allocation: small ones would take a piece of what an earlier large tensor left.
  Tensor dx = new_picture(x, p.x_channels_last);
  g.dx = dx.mutable_data_ptr();
  if (on_cuda(x)) {
    if constexpr (has_cuda_kernels) {
      const OnDeviceOf device(x);
      modulated_bias_act_grad_cuda(g, device.stream());
    }
  } else if constexpr (has_cpu_kernels) {
    const auto kernel = PYGAN_BEST_ISA(modulated_bias_act_grad_cpu);
    parallel_units(p, [&](int64_t begin, int64_t end) { kernel(g, begin, end); });
    PYGAN_BEST_ISA(modulated_bias_act_sums_cpu)(g, 0, p.channels);
  }
  return {dx, dd, dnoise, db};
}

Tensor kernel_energy(Tensor w) {
  const Dtype dtype = dtype_of(w, "kernel_energy");
  STD_TORCH_CHECK(w.dim() == 4, "kernel_energy: w must have 4 dimensions");
  Tensor e = torch::stable::new_empty(w, {w.size(0), w.size(1)}, accumulator(dtype));
  if (w.numel() == 0) return torch::stable::zero_(e);
  const bool channels_last = is_channels_last(w);
  const Tensor dense_w = dense(w, channels_last);
  const KernelEnergyParams p{.w = dense_w.const_data_ptr(),
                             .e = e.mutable_data_ptr(),
                             .outer = channels_last ? w.size(0) : e.numel(),
                             .taps = w.size(2) * w.size(3),
                             .inner = channels_last ? w.size(1) : 1,
                             .dtype = dtype};
  if (on_cuda(w)) {
    if constexpr (has_cuda_kernels) {
      const OnDeviceOf device(w);
      kernel_energy_cuda(p, device.stream());
    }
  } else if constexpr (has_cpu_kernels) {
    const auto kernel = PYGAN_BEST_ISA(kernel_energy_cpu);
    torch::stable::parallel_for(0, e.numel(), 1 + elements_per_thread / p.taps,
                                [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
  }
  return e;
}

void kernels(auto& m) {
  m.impl("modulated_bias_act", TORCH_BOX(&modulated_bias_act));
  m.impl("modulated_bias_act_grad", TORCH_BOX(&modulated_bias_act_grad));
  m.impl("kernel_energy", TORCH_BOX(&kernel_energy));
}

}  // namespace
}  // namespace pygan

STABLE_TORCH_LIBRARY_FRAGMENT(PYGAN_NAMESPACE, m) {
  m.def(
      "modulated_bias_act(Tensor x, Tensor? d, Tensor? noise, Tensor? b, int act, float alpha, float gain, "
      "float clamp, bool channels_last) -> Tensor");
  m.def(
      "modulated_bias_act_grad(Tensor dy, Tensor x, Tensor? d, Tensor? noise, Tensor? b, int act, float alpha, "
      "float gain, float clamp) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("kernel_energy(Tensor w) -> Tensor");
}

PYGAN_REGISTER(pygan::kernels)

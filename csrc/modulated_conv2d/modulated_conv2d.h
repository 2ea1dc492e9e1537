// What the modulated convolution does around the convolution itself: parameters, shared by host and device.
//
//   y = clamp(act(z) * gain, -clamp, clamp),  z = x * d + noise + b
//
// With d = s, the styles, and nothing else this scales the input of the convolution; with d, the demodulation, it is
// the epilogue. Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958,
// equations 1 to 3.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "bias_act/bias_act.h"
#include "common/dtype.h"
#include "common/isa.h"
#include "common/math.h"
#include "common/platform.h"

namespace pygan {

// A is the type the kernels compute in, Acc<T> of the element type T.
struct ModulatedBiasActParams {
  const void* x;      // [batch, channels, pixels] or, channels last, [batch, pixels, channels]; dtype
  const void* d;      // [batch, channels], A; null: 1
  const void* noise;  // [batch or 1, pixels], A; null: 0
  const void* b;      // [channels], A; null: 0
  void* y;            // as x, but of its own layout
  int64_t batch;
  int64_t channels;
  int64_t pixels;
  int64_t noise_stride;  // from one sample's noise to the next: pixels, or 0 where all have the same
  bool x_channels_last;
  bool y_channels_last;  // the CUDA kernels have one layout for all
  Dtype dtype;
  Activation act;
  double alpha;  // as in BiasActParams
  double gain;
  double clamp;
  int64_t max_blocks = 1 << 16;  // of a CUDA grid; the rest is reached by striding
};

// True where y = z.
PYGAN_HD bool is_linear(const ModulatedBiasActParams& p) {
  return p.act == Activation::linear && p.gain == 1 && !(p.clamp < HUGE_VAL);
}

// With dz = dy * gain * act'(z), 0 where y is at the clamp:
//   dx = dz * d,                     dd = sum over pixels of dz * x,
//   dnoise = sum over channels of dz,  db = sum over batch and pixels of dz
struct ModulatedBiasActGradParams {
  ModulatedBiasActParams forward;  // its y is unused
  const void* dy;                  // as forward.y
  void* dx;                        // as x; for CUDA aligned to 16 bytes
  void* dd;                        // [batch, channels], A; null: not wanted
  void* db;                        // [channels], A; null: not wanted
  void* dnoise;                    // [batch, pixels], A; null: not wanted
  // The sums are made in two steps, the first of which leaves these parts; so their order never depends on the threads.
  void* channel_parts;     // [batch, pixel_blocks, 2, channels], A: of dz * x, and of dz
  void* pixel_parts;       // [batch, channel_blocks, pixels], A; CUDA only
  int64_t pixel_blocks;    // as `pixel_blocks_cpu` or `grad_blocks_cuda` say
  int64_t channel_blocks;  // CUDA only
};

// e[i] = sum over taps of w[i, tap]^2, of the weight of a convolution.
struct KernelEnergyParams {
  const void* w;  // [outer, taps, inner], dtype
  void* e;        // [outer, inner], A
  int64_t outer;
  int64_t taps;
  int64_t inner;  // 1: the taps are the fastest dimension (contiguous)
  Dtype dtype;
  int64_t max_blocks = 1 << 16;
};

// d act(z) / dz; at the kink of relu and lrelu the value of the negative side, as torch has it.
template <Activation act, class A>
PYGAN_HD A slope(A z, A alpha) {
  if constexpr (act == Activation::relu) return z > A(0) ? A(1) : A(0);
  if constexpr (act == Activation::lrelu) return z > A(0) ? A(1) : alpha;
  if constexpr (act == Activation::tanh) {
    const A t = math::tanh(z);
    return A(1) - t * t;
  }
  if constexpr (act == Activation::sigmoid) {
    const A s = math::sigmoid(z);
    return s * (A(1) - s);
  }
  if constexpr (act == Activation::elu) {
    const A negative = math::exp(z);
    return z > A(0) ? A(1) : negative;
  }
  if constexpr (act == Activation::selu) {
    const A negative = A(selu_alpha) * math::exp(z);
    return A(selu_scale) * (z > A(0) ? A(1) : negative);
  }
  if constexpr (act == Activation::softplus) {
    const A curved = math::sigmoid(z);
    return z > A(softplus_threshold) ? A(1) : curved;
  }
  if constexpr (act == Activation::swish) {
    const A s = math::sigmoid(z);
    return s + z * s * (A(1) - s);
  }
  return A(1);
}

// y, given z.
template <Activation act, class A>
PYGAN_HD A activated(A z, A alpha, A gain, A clamp) {
  const A y = activate<act>(z, alpha) * gain;
  return y > clamp ? clamp : (y < -clamp ? -clamp : y);
}

// dz, given z; 0 where y is at the clamp, as in bias_act.
template <Activation act, class A>
PYGAN_HD A activated_grad(A dy, A z, A alpha, A gain, A clamp) {
  const A y = activate<act>(z, alpha) * gain;
  const A dz = dy * gain * slope<act>(z, alpha);
  return y >= clamp || y <= -clamp ? A(0) : dz;
}

// Calls fn with the activation as a type.
template <class F>
PYGAN_HD void with_activation(Activation act, F&& fn) {
  switch (act) {
    case Activation::linear: return fn(std::integral_constant<Activation, Activation::linear>{});
    case Activation::relu: return fn(std::integral_constant<Activation, Activation::relu>{});
    case Activation::lrelu: return fn(std::integral_constant<Activation, Activation::lrelu>{});
    case Activation::tanh: return fn(std::integral_constant<Activation, Activation::tanh>{});
    case Activation::sigmoid: return fn(std::integral_constant<Activation, Activation::sigmoid>{});
    case Activation::elu: return fn(std::integral_constant<Activation, Activation::elu>{});
    case Activation::selu: return fn(std::integral_constant<Activation, Activation::selu>{});
    case Activation::softplus: return fn(std::integral_constant<Activation, Activation::softplus>{});
    case Activation::swish: return fn(std::integral_constant<Activation, Activation::swish>{});
  }
}

// Pixels that a unit of work of the CPU kernels covers, with all channels of one sample.
constexpr int64_t pixels_per_unit = 4096;

PYGAN_HD int64_t pixel_blocks_cpu(int64_t pixels) { return (pixels + pixels_per_unit - 1) / pixels_per_unit; }

// Computes the units [begin, end) of batch * pixel_blocks_cpu(pixels).
template <Isa>
void modulated_bias_act_cpu(const ModulatedBiasActParams& p, int64_t begin, int64_t end);
template <Isa>
void modulated_bias_act_grad_cpu(const ModulatedBiasActGradParams& p, int64_t begin, int64_t end);

// The second step: dd and db of the channels [begin, end) from their parts.
template <Isa>
void modulated_bias_act_sums_cpu(const ModulatedBiasActGradParams& p, int64_t begin, int64_t end);

// Computes the elements [begin, end) of e.
template <Isa>
void kernel_energy_cpu(const KernelEnergyParams& p, int64_t begin, int64_t end);

void modulated_bias_act_cuda(const ModulatedBiasActParams& p, void* stream);
void modulated_bias_act_grad_cuda(const ModulatedBiasActGradParams& p, void* stream);
void kernel_energy_cuda(const KernelEnergyParams& p, void* stream);

// Given the forward parameters and dy, sets pixel_blocks and channel_blocks as the CUDA kernel will cut the work, so
// that the parts can be allocated.
void grad_blocks_cuda(ModulatedBiasActGradParams& p);

}  // namespace pygan

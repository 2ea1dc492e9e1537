// Bias, activation, gain and clamp in one pass: parameters and the maths of one element, for host and device.
//
//   y = clamp(act(x + b) * gain, -clamp, clamp)
//
// Activations and defaults follow StyleGAN2-ADA (Karras et al., NeurIPS 2020, arXiv:2006.06676).
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/math.h"
#include "common/platform.h"

namespace pygan {

// The order is that of ACTIVATIONS in pygan/ops/bias_act.py.
enum class Activation { linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish };

struct BiasActParams {
  const void* x;   // [outer, channels, inner], dense, dtype
  const void* b;   // [channels], dtype; null: no bias
  const void* dy;  // as x: gradient of the output; null: compute the output itself
  void* y;         // as x: the output, or with dy the gradient of x
  int64_t channels;
  int64_t inner;  // 1: channels are the fastest dimension (channels_last)
  Dtype dtype;
  Activation act;
  double alpha;  // negative slope of lrelu; unused by the others
  double gain;
  double clamp;  // infinity: none
};

constexpr double selu_scale = 1.0507009873554804934193349852946;
constexpr double selu_alpha = 1.6732632423543772848170429916717;
constexpr double softplus_threshold = 20;  // above it softplus(z) = z, as torch has it

// act(z); NaN in, NaN out. Both sides of a selection are computed first, so that the loop around has no branch.
template <Activation act, class A>
PYGAN_HD A activate(A z, A alpha) {
  if constexpr (act == Activation::relu) return z < A(0) ? A(0) : z;
  if constexpr (act == Activation::lrelu) {
    const A negative = z * alpha;
    return z > A(0) ? z : negative;
  }
  if constexpr (act == Activation::tanh) return math::tanh(z);
  if constexpr (act == Activation::sigmoid) return math::sigmoid(z);
  if constexpr (act == Activation::elu) {
    const A negative = math::expm1(z);
    return z > A(0) ? z : negative;
  }
  if constexpr (act == Activation::selu) {
    const A negative = A(selu_alpha) * math::expm1(z);
    return A(selu_scale) * (z > A(0) ? z : negative);
  }
  if constexpr (act == Activation::softplus) {
    const A curved = math::softplus(z);
    return z > A(softplus_threshold) ? z : curved;
  }
  if constexpr (act == Activation::swish) return z * math::sigmoid(z);
  return z;
}

// d act(z) / dz; at the kink of relu and lrelu the value of the negative side, as torch has it.
template <Activation act, class A>
PYGAN_HD A derivative(A z, A alpha) {
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

// Gain and clamp after the activation.
template <Activation act, class A>
PYGAN_HD A bias_act_element(A x, A b, A alpha, A gain, A clamp) {
  const A y = activate<act>(x + b, alpha) * gain;
  return y > clamp ? clamp : (y < -clamp ? -clamp : y);
}

// Gradient of x; nothing flows where the output was clamped.
template <Activation act, class A>
PYGAN_HD A bias_act_grad_element(A dy, A x, A b, A alpha, A gain, A clamp) {
  const A z = x + b;
  const A y = activate<act>(z, alpha) * gain;
  const A dx = dy * gain * derivative<act>(z, alpha);
  return y > clamp || y < -clamp ? A(0) : dx;
}

// Computes the elements [begin, end), counted in memory order.
template <Isa>
void bias_act_cpu(const BiasActParams& p, int64_t begin, int64_t end);

}  // namespace pygan

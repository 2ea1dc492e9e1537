// Bias, activation, gain and clamp in one pass: parameters and the maths of one element, for host and device.
//
//   y = clamp(act(x + b) * gain, -clamp, clamp)
//
// Activations and defaults follow StyleGAN2-ADA (Karras et al., NeurIPS 2020, arXiv:2006.06676). So does the gradient,
// which is read off the output y, except for swish, and is 0 where |y| >= clamp.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/math.h"
#include "common/platform.h"

namespace pygan {

// The order is that of ACTIVATIONS in pygan/ops/bias_act.py.
enum class Activation { linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish };

// The tensors are dense and seen as [outer, channels, inner]; without b and db as one channel.
struct BiasActParams {
  const void* x;   // [outer, channels, inner], dtype: the input; for the gradient what the forward pass saved
  const void* b;   // [channels], dtype; null: no bias, or not needed for the gradient
  const void* dy;  // as x: gradient of the output; null: compute the output itself
  void* y;         // as x: the output, or with dy the gradient of x
  void* db;        // [channels], dtype: gradient of b; null: not wanted
  void* partial;   // Acc<dtype>: partial sums of db, as many as the device says below; null without db
  int64_t size;    // elements of x
  int64_t channels;
  int64_t inner;  // 1: channels are the fastest dimension (channels_last)
  Dtype dtype;
  Activation act;
  double alpha;  // negative slope of lrelu, not negative; unused by the others
  double gain;   // positive
  double clamp;  // NaN: none
  int64_t max_blocks = 1 << 16;  // of a CUDA grid; the rest is reached by striding
};

// True where the forward pass saves its output for the gradient, false where its input.
PYGAN_HD constexpr bool saves_output(Activation act) { return act != Activation::swish; }

constexpr double selu_scale = 1.0507009873554804934193349852946;
constexpr double selu_alpha = 1.6732632423543772848170429916717;
constexpr double softplus_threshold = 20;  // above it softplus(z) = z, as torch has it

// `value` as a tensor of elements T keeps it.
template <class T>
PYGAN_HD Acc<T> rounded(Acc<T> value) {
  T kept;
  store(kept, value);
  return load(kept);
}

// The options in the type that a kernel for elements T computes in.
template <class T>
struct BiasActOptions {
  Acc<T> alpha, gain, inverse_gain, clamp;

  PYGAN_HD explicit BiasActOptions(const BiasActParams& p)
      : alpha(Acc<T>(p.alpha)),
        gain(Acc<T>(p.gain)),
        inverse_gain(Acc<T>(1 / p.gain)),
        clamp(rounded<T>(Acc<T>(p.clamp))) {}  // a stored output that was clamped compares equal
};

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

// gain * d act(z) / dz, given y = gain * act(z); at the kink of relu and lrelu the value of the negative side, as torch
// has it.
template <Activation act, class T>
PYGAN_HD Acc<T> slope_at_output(Acc<T> y, const BiasActOptions<T>& o) {
  using A = Acc<T>;
  if constexpr (act == Activation::relu) return y > A(0) ? o.gain : A(0);
  if constexpr (act == Activation::lrelu) {
    const A negative = o.gain * o.alpha;
    return y > A(0) ? o.gain : negative;
  }
  if constexpr (act == Activation::tanh) return o.gain - y * (y * o.inverse_gain);
  if constexpr (act == Activation::sigmoid) return y - y * (y * o.inverse_gain);
  if constexpr (act == Activation::elu) {
    const A negative = y + o.gain;
    return y > A(0) ? o.gain : negative;
  }
  if constexpr (act == Activation::selu) {
    const A negative = y + A(selu_scale * selu_alpha) * o.gain;
    return y > A(0) ? A(selu_scale) * o.gain : negative;
  }
  if constexpr (act == Activation::softplus) {
    const A t = y * o.inverse_gain;
    const A curved = -o.gain * math::expm1(-t);
    return t > A(softplus_threshold) ? o.gain : curved;
  }
  return o.gain;
}

// gain * d act(z) / dz for swish.
template <class T>
PYGAN_HD Acc<T> swish_slope(Acc<T> z, const BiasActOptions<T>& o) {
  using A = Acc<T>;
  const A s = math::sigmoid(z);
  return o.gain * (s + z * s * (A(1) - s));
}

// The output for one input.
template <Activation act, class T>
PYGAN_HD Acc<T> bias_act_element(Acc<T> x, Acc<T> b, const BiasActOptions<T>& o) {
  const Acc<T> y = activate<act>(x + b, o.alpha) * o.gain;
  return y > o.clamp ? o.clamp : (y < -o.clamp ? -o.clamp : y);
}

// The gradient of one input; `saved` is what the forward pass saved, `b` is read where that is its input.
template <Activation act, class T>
PYGAN_HD Acc<T> bias_act_grad_element(Acc<T> dy, Acc<T> saved, Acc<T> b, const BiasActOptions<T>& o) {
  using A = Acc<T>;
  A y, slope;
  if constexpr (saves_output(act)) {
    y = saved;
    slope = slope_at_output<act, T>(y, o);
  } else {
    const A z = saved + b;
    y = rounded<T>(activate<act>(z, o.alpha) * o.gain);
    slope = swish_slope<T>(z, o);
  }
  const A dx = dy * slope;
  return y >= o.clamp || y <= -o.clamp ? A(0) : dx;
}

constexpr int64_t bias_act_most_columns = 1024;  // of a unit

// How the CPU loops cut the elements into units of work, which threads share. The shape alone decides it, and with it
// the order in which db is summed: within a unit, then over the units of a channel.
struct BiasActTiling {
  int64_t units;
  int64_t slices;    // partial sums of each channel; `partial` is [slices, channels]
  int64_t segments;  // long rows (of one channel): parts of a row, a unit each; else 0
  // Short rows: the elements are a matrix of whole periods of the bias, a unit is a block of it.
  int64_t columns, rows;
  int64_t unit_columns, unit_rows;
};

namespace detail {

// How many parts of at most `size` make up `whole`.
PYGAN_HD int64_t parts(int64_t whole, int64_t size) { return (whole + size - 1) / size; }

}  // namespace detail

PYGAN_HD BiasActTiling bias_act_tiling(const BiasActParams& p) {
  constexpr int64_t long_row = 64, longest_segment = 1 << 14, least_rows = 16, most_slices = 64;
  constexpr int64_t most_columns = bias_act_most_columns;
  BiasActTiling t{};
  const int64_t period = p.channels * p.inner;
  if (p.inner >= long_row) {
    t.segments = detail::parts(p.inner, longest_segment);
    t.slices = p.size / period * t.segments;
    t.units = t.slices * p.channels;
    return t;
  }
  t.columns = period * (period < most_columns ? most_columns / period : 1);
  t.rows = detail::parts(p.size, t.columns);
  t.unit_columns = t.columns <= most_columns ? t.columns : most_columns / p.inner * p.inner;  // no channel is cut
  t.unit_rows = detail::parts(t.rows, most_slices);
  if (t.unit_rows < least_rows) t.unit_rows = least_rows;
  t.slices = detail::parts(t.rows, t.unit_rows);
  t.units = t.slices * detail::parts(t.columns, t.unit_columns);
  return t;
}

// Computes the units [begin, end) of `t`: outputs, or with dy gradients of x and partial sums of db.
template <Isa>
void bias_act_cpu(const BiasActParams& p, const BiasActTiling& t, int64_t begin, int64_t end);

// db from the partial sums.
template <Isa>
void bias_act_sum_cpu(const BiasActParams& p, const BiasActTiling& t);

// Elements of `partial` that bias_act_cuda needs for db.
int64_t bias_act_cuda_workspace(const BiasActParams& p);

// Computes all elements, and db where wanted, on a CUDA stream.
void bias_act_cuda(const BiasActParams& p, void* stream);

}  // namespace pygan

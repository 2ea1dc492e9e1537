// Upsampling, FIR filtering and downsampling of planes: parameters and index arithmetic, for host and device.
//
//   y[o] = sum over k of f[k] * u[o * down + k - pad], u being x with up - 1 zeros after every sample
//
// along each axis. Conventions follow StyleGAN2-ADA (Karras et al., NeurIPS 2020, arXiv:2006.06676).
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/platform.h"

namespace pygan {

// What happens along x or y.
struct UpfirdnAxis {
  int64_t in;   // samples of the input
  int64_t out;  // samples of the output
  int64_t up;
  int64_t down;
  int64_t pad;   // zeros before the first sample; negative: samples of the upsampled input that are skipped
  int64_t taps;  // of the filter
};

struct Upfirdn2dParams {
  const void* x;  // [N, y.in, x.in, C] if channels_last, else [N, C, y.in, x.in]; dense, dtype
  void* y;        // the same with y.out, x.out
  int64_t batch;
  int64_t channels;
  UpfirdnAxis across;  // along x
  UpfirdnAxis along;   // along y
  bool channels_last;
  Dtype dtype;
  int64_t max_blocks = 1 << 16;  // of a CUDA grid; the rest is reached by striding
};

// The taps as correlation uses them, with the gain, for the CPU: a pair of vectors or one matrix.
struct HostFilter {
  const double* across;  // [across.taps]; null: see both
  const double* along;   // [along.taps]; null: see both
  const double* both;    // [along.taps, across.taps]; null: separable
};

// The taps in memory of the device.
struct DeviceFilter {
  const float* taps;  // [along.taps, across.taps], or [taps] if separable; null: a single 1
  bool separable;
  bool flip;  // true: the taps are as correlation uses them, false: reversed along both axes
  double gain;
};

// The terms of one output sample: tap `tap + i * up` times input sample `sample + i`, for i below `count`.
struct UpfirdnTerms {
  int64_t sample;
  int64_t tap;
  int64_t count;
};

PYGAN_HD int64_t floor_div(int64_t a, int64_t b) { return (a >= 0 ? a : a - b + 1) / b; }

PYGAN_HD UpfirdnTerms terms_of(const UpfirdnAxis& axis, int64_t out) {
  const int64_t position = out * axis.down - axis.pad;  // of the first tap, in samples of the upsampled input
  const int64_t sample = floor_div(position + axis.up - 1, axis.up);
  const int64_t tap = sample * axis.up - position;
  return {sample, tap, tap < axis.taps ? (axis.taps - tap + axis.up - 1) / axis.up : 0};
}

// Computes the output rows [begin, end), counted over all planes (channels_last: over all pictures).
template <Isa>
void upfirdn2d_cpu(const Upfirdn2dParams& p, const HostFilter& f, int64_t begin, int64_t end);

// Computes the output on a CUDA stream.
void upfirdn2d_cuda(const Upfirdn2dParams& p, const DeviceFilter& f, void* stream);

}  // namespace pygan

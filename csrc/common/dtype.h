// Element types of the kernels: storage, conversion to the type they compute in, and run-time dispatch.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/platform.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

namespace pygan {

enum class Dtype { f32, f64, f16, bf16 };

// IEEE binary16, stored as its bits.
struct Half {
  uint16_t bits;
};

// The upper half of a binary32, stored as its bits.
struct BFloat16 {
  uint16_t bits;
};

// The type a kernel computes in: float for everything narrower than double.
template <class T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <class T>
using Acc = typename Accumulator<T>::type;

namespace detail {

PYGAN_HD float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

PYGAN_HD uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace detail

PYGAN_HD float load(const float& x) { return x; }
PYGAN_HD double load(const double& x) { return x; }
PYGAN_HD float load(const BFloat16& x) { return detail::float_of(uint32_t(x.bits) << 16); }

PYGAN_HD float load(const Half& x) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(x.bits));
#endif
  const uint32_t magnitude = uint32_t(x.bits & 0x7fff) << 13;
  // Read as float, the exponent is 112 too small; infinity and NaN keep an exponent of all ones.
  const float scaled = detail::float_of(magnitude) * 0x1p112f;
  const uint32_t finite = detail::bits_of(scaled);
  const uint32_t special = magnitude | 0x7f800000u;
  return detail::float_of((magnitude >= 0x0f800000u ? special : finite) | uint32_t(x.bits & 0x8000) << 16);
}

PYGAN_HD void store(float& to, float x) { to = x; }
PYGAN_HD void store(double& to, double x) { to = x; }

// Round to nearest, ties to even; NaN stays NaN.
PYGAN_HD void store(BFloat16& to, float x) {
  const uint32_t bits = detail::bits_of(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  to.bits = uint16_t(x != x ? 0x7fc0u : rounded);
}

// Round to nearest, ties to even; what is too large becomes infinity, NaN stays NaN.
PYGAN_HD void store(Half& to, float x) {
#ifdef __CUDA_ARCH__
  to.bits = __half_as_ushort(__float2half_rn(x));
  return;
#endif
  const uint32_t bits = detail::bits_of(x);
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Normal: round away 13 bits of the mantissa and rebias the exponent by 112.
  const uint32_t normal = (magnitude + 0xfffu + (magnitude >> 13 & 1) - (112u << 23)) >> 13;
  // Subnormal: one unit of the result is 2^-24, which is also one unit of a float in [0.5, 1).
  const uint32_t subnormal = detail::bits_of(detail::float_of(magnitude) + 0.5f) - detail::bits_of(0.5f);
  uint32_t result = magnitude < 0x38800000u ? subnormal : normal;  // 2^-14, the smallest normal
  result = magnitude >= 0x477ff000u ? 0x7c00u : result;            // 65520 rounds up to infinity
  result = magnitude > 0x7f800000u ? 0x7e00u : result;
  to.bits = uint16_t(result | (bits >> 16 & 0x8000u));
}

// Calls fn with a null pointer whose type is the element type.
template <class F>
PYGAN_HD void dispatch(Dtype dtype, F&& fn) {
  switch (dtype) {
    case Dtype::f32: return fn(static_cast<float*>(nullptr));
    case Dtype::f64: return fn(static_cast<double*>(nullptr));
    case Dtype::f16: return fn(static_cast<Half*>(nullptr));
    case Dtype::bf16: return fn(static_cast<BFloat16*>(nullptr));
  }
}

}  // namespace pygan

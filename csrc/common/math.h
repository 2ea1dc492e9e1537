// Transcendental functions that compilers vectorize: straight-line float code, accurate to about 2 units in the last
// place; double goes to the C library. NaN in, NaN out.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/dtype.h"
#include "common/platform.h"

namespace pygan::math {
namespace detail {

// x = n ln 2 + r with |r| <= ln(2) / 2; exp(x) - 1 = 2^n (exp(r) - 1) + 2^n - 1.
struct Reduced {
  float expm1_r;
  int32_t n;
};

PYGAN_HD Reduced reduce(float x) {
  constexpr float round_to_integer = 0x1.8p23f;  // a float this large has no fraction bits left
  const float shifted = x * 1.44269504f + round_to_integer;
  const float n = shifted - round_to_integer;
  const float r = (x - n * 0x1.62e4p-1f) - n * 1.42860677e-6f;  // ln 2 in two parts: the first product is exact
  // Taylor series; the first term left out is below 6e-9 of the sum.
  const float tail =
      1.f / 2 + r * (1.f / 6 + r * (1.f / 24 + r * (1.f / 120 + r * (1.f / 720 + r * (1.f / 5040)))));
  return {r + r * r * tail, int32_t(pygan::detail::bits_of(shifted) - pygan::detail::bits_of(round_to_integer))};
}

// 2^n for n in [-126, 127].
PYGAN_HD float power_of_two(int32_t n) { return pygan::detail::float_of(uint32_t(n + 127) << 23); }

PYGAN_HD float clamp(float x, float low, float high) { return x < low ? low : (x > high ? high : x); }

}  // namespace detail

PYGAN_HD float exp(float x) {
  const auto [expm1_r, n] = detail::reduce(detail::clamp(x, -104.f, 89.f));  // the result is 0 below, infinite above
  const int32_t half = n >> 1;  // 2^n itself may be no normal number
  return (expm1_r + 1.f) * detail::power_of_two(half) * detail::power_of_two(n - half);
}

// exp(x) - 1 for x <= 80, above which it stays at exp(80).
PYGAN_HD float expm1(float x) {
  const auto [expm1_r, n] = detail::reduce(detail::clamp(x, -80.f, 80.f));
  const float scale = detail::power_of_two(n);
  return scale * expm1_r + (scale - 1.f);
}

PYGAN_HD float tanh(float x) {
  const float e = expm1(std::fabs(x) * 2.f);
  return std::copysign(e / (e + 2.f), x);
}

// log(1 + exp(x))
PYGAN_HD float softplus(float x) {
  const float t = exp(-std::fabs(x));
  // log(1 + t) = 2 atanh(s); t <= 1, so s <= 1/3 and the first term left out is below 2e-9 of the sum.
  const float s = t / (2.f + t);
  const float q = s * s;
  const float tail =
      1.f / 3 + q * (1.f / 5 + q * (1.f / 7 + q * (1.f / 9 + q * (1.f / 11 + q * (1.f / 13 + q * (1.f / 15))))));
  return (x > 0.f ? x : 0.f) + 2.f * (s + s * q * tail);
}

PYGAN_HD double exp(double x) { return std::exp(x); }
PYGAN_HD double expm1(double x) { return std::expm1(x); }
PYGAN_HD double tanh(double x) { return std::tanh(x); }
PYGAN_HD double softplus(double x) { return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x))); }

template <class A>
PYGAN_HD A sigmoid(A x) {
  return A(1) / (A(1) + exp(-x));
}

}  // namespace pygan::math

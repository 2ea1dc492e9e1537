// Barriers, warp intrinsics, atomics and arithmetic functions under their CUDA names.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt.h"
#include "state.h"

// ---- barriers and fences ----

inline void __syncthreads(simt::Location here = simt::Location::current()) { simt::sync_block(false, here); }

inline int __syncthreads_count(int predicate, simt::Location here = simt::Location::current()) {
  return int(simt::sync_block(predicate != 0, here));
}

inline int __syncthreads_or(int predicate, simt::Location here = simt::Location::current()) {
  return simt::sync_block(predicate != 0, here) > 0;
}

inline int __syncthreads_and(int predicate, simt::Location here = simt::Location::current()) {
  return simt::sync_block(predicate == 0, here) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffff, simt::Location here = simt::Location::current()) {
  simt::sync_warp(mask, here);
}

// Blocks run one after another and every write is seen at once: what fences order is in order already, so that a missing
// one is not noticed.
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- warp shuffles and votes ----

namespace simt {

// First lane of the segment of `width` lanes around `lane`.
inline unsigned segment(unsigned lane, int width) {
  if (width <= 0 || width > int(warp_size) || (width & (width - 1))) throw Error("shuffle: width is no power of two");
  return lane & ~unsigned(width - 1);
}

// Values of 1 to 8 bytes, as CUDA's shuffles take.
template <class T>
T shuffle(unsigned mask, T value, unsigned source, Location here) {
  static_assert(std::is_arithmetic_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(mask, bits, source, here);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace simt

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = simt::warp_size,
              simt::Location here = simt::Location::current()) {
  const unsigned first = simt::segment(simt::running->lane, width);
  return simt::shuffle(mask, value, first + (unsigned(source) & unsigned(width - 1)), here);
}

// In the other three a lane whose source lies outside of its segment keeps its own value.

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = simt::warp_size,
                 simt::Location here = simt::Location::current()) {
  const unsigned lane = simt::running->lane, first = simt::segment(lane, width);
  return simt::shuffle(mask, value, lane >= first + delta ? lane - delta : lane, here);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = simt::warp_size,
                   simt::Location here = simt::Location::current()) {
  const unsigned lane = simt::running->lane, end = simt::segment(lane, width) + unsigned(width);
  return simt::shuffle(mask, value, lane + delta < end ? lane + delta : lane, here);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = simt::warp_size,
                  simt::Location here = simt::Location::current()) {
  const unsigned lane = simt::running->lane, source = lane ^ unsigned(lane_mask);
  const unsigned end = simt::segment(lane, width) + unsigned(width);
  return simt::shuffle(mask, value, source < end ? source : lane, here);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Location here = simt::Location::current()) {
  return simt::ballot(mask, predicate != 0, here);
}

inline int __any_sync(unsigned mask, int predicate, simt::Location here = simt::Location::current()) {
  return simt::ballot(mask, predicate != 0, here) != 0;
}

inline int __all_sync(unsigned mask, int predicate, simt::Location here = simt::Location::current()) {
  return simt::ballot(mask, predicate == 0, here) == 0;
}

// ---- atomics: each returns the value before ----

template <class T>
T atomicAdd(T* address, T value) {
  return std::atomic_ref<T>(*address).fetch_add(value, std::memory_order_relaxed);
}

template <class T>
T atomicExch(T* address, T value) {
  return std::atomic_ref<T>(*address).exchange(value, std::memory_order_relaxed);
}

template <class T>
T atomicCAS(T* address, T expected, T value) {
  std::atomic_ref<T>(*address).compare_exchange_strong(expected, value, std::memory_order_relaxed);
  return expected;
}

namespace simt {

template <class T, class F>
T atomic_update(T* address, F&& update) {
  static_assert(std::is_integral_v<T>);
  std::atomic_ref<T> target(*address);
  T before = target.load(std::memory_order_relaxed);
  while (!target.compare_exchange_weak(before, update(before), std::memory_order_relaxed)) {
  }
  return before;
}

}  // namespace simt

template <class T>
T atomicMax(T* address, T value) {
  return simt::atomic_update(address, [value](T before) { return std::max(before, value); });
}

template <class T>
T atomicMin(T* address, T value) {
  return simt::atomic_update(address, [value](T before) { return std::min(before, value); });
}

// Counts up and starts again at 0 after `last`.
inline unsigned atomicInc(unsigned* address, unsigned last) {
  return simt::atomic_update(address, [last](unsigned before) { return before >= last ? 0u : before + 1; });
}

// ---- loads and stores with a cache hint ----

template <class T>
T __ldg(const T* address) { return *address; }
template <class T>
T __ldcg(const T* address) { return *address; }
template <class T>
T __ldcs(const T* address) { return *address; }
template <class T>
void __stcg(T* address, T value) { *address = value; }
template <class T>
void __stcs(T* address, T value) { *address = value; }

// ---- bits ----

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(unsigned(x)) + 1; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }

// ---- arithmetic; sqrtf, fmaf and their like are the C library's ----

// Of two floating point numbers the one that is no NaN, as in CUDA.
template <class T>
constexpr T max(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) return std::fmax(a, b);
  return a < b ? b : a;
}

template <class T>
constexpr T min(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) return std::fmin(a, b);
  return b < a ? b : a;
}

inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline double rsqrt(double x) { return 1. / std::sqrt(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frsqrt_rn(float x) { return 1.f / std::sqrt(x); }
inline float __saturatef(float x) { return x > 0.f ? std::fmin(x, 1.f) : 0.f; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }

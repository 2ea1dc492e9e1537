// CPU loops of the power iteration. Compiled once per instruction set, which PYGAN_ISA names.
#include "spectral_norm/spectral_norm.h"

#include <type_traits>

namespace pygan {
namespace {

// Partial sums of a dot product. A fixed number makes the result the same for every instruction set.
constexpr int64_t lanes = 32;
// Columns summed at a time: their accumulators stay in the first-level cache.
constexpr int64_t block = 512;

template <class T>
Acc<T> dot(const T* __restrict a, const Acc<T>* __restrict b, int64_t n) {
  Acc<T> sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] += load(a[i + lane]) * b[i + lane];
  }
  for (int64_t lane = 0; i + lane < n; ++lane) sums[lane] += load(a[i + lane]) * b[i + lane];
  for (int64_t half = lanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

template <class T>
void matrix_vector(const MatrixParams& p, int64_t begin, int64_t end) {
  const T* w = static_cast<const T*>(p.w);
  const Acc<T>* in = static_cast<const Acc<T>*>(p.in);
  Acc<T>* out = static_cast<Acc<T>*>(p.out);
  for (int64_t row = begin; row < end; ++row) out[row] = dot(w + row * p.cols, in, p.cols);
}

template <class T>
void transposed_vector(const MatrixParams& p, int64_t begin, int64_t end) {
  const T* w = static_cast<const T*>(p.w);
  const Acc<T>* in = static_cast<const Acc<T>*>(p.in);
  Acc<T>* out = static_cast<Acc<T>*>(p.out);
  for (int64_t first = begin; first < end; first += block) {
    const int64_t count = end - first < block ? end - first : block;
    Acc<T> sums[block] = {};
    for (int64_t row = 0; row < p.rows; ++row) {
      const T* __restrict line = w + row * p.cols + first;
      const Acc<T> factor = in[row];
      for (int64_t j = 0; j < count; ++j) sums[j] += factor * load(line[j]);
    }
    for (int64_t j = 0; j < count; ++j) out[first + j] = sums[j];
  }
}

}  // namespace

template <>
void matrix_vector_cpu<Isa::PYGAN_ISA>(const MatrixParams& p, int64_t begin, int64_t end) {
  dispatch(p.dtype, [&](auto* element) { matrix_vector<std::remove_pointer_t<decltype(element)>>(p, begin, end); });
}

template <>
void transposed_vector_cpu<Isa::PYGAN_ISA>(const MatrixParams& p, int64_t begin, int64_t end) {
  dispatch(p.dtype,
           [&](auto* element) { transposed_vector<std::remove_pointer_t<decltype(element)>>(p, begin, end); });
}

}  // namespace pygan

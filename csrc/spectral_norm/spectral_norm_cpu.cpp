// CPU loops of the power iteration. Compiled once per instruction set, which PYGAN_ISA names.
#include "spectral_norm/spectral_norm.h"

#include <type_traits>

namespace pygan {
namespace {

// A sum along a row is this many partial sums, added as a tree: the same for every instruction set.
constexpr int64_t lanes = 16;
// Rows that are read side by side.
constexpr int64_t rows_at_once = 4;
// Sums of columns that stay in the first-level cache beside the rows that are added to them.
constexpr int64_t columns_at_once = 4096;

template <class A>
struct LanesOf {
  typedef A type __attribute__((vector_size(lanes * sizeof(A))));
};
template <class A>
using Lanes = typename LanesOf<A>::type;

// The first `count` of the elements from `from` on, then zeros.
template <class T>
PYGAN_HD void load_lanes(Lanes<Acc<T>>& to, const T* from, int64_t count = lanes) {
  Acc<T> values[lanes] = {};
  for (int64_t lane = 0; lane < count; ++lane) values[lane] = load(from[lane]);
  __builtin_memcpy(&to, values, sizeof to);
}

template <class A>
PYGAN_HD A tree_sum(Lanes<A> sums) {
  for (int64_t half = lanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

// out[r] = sum over i of a[r * stride + i] * b[i], for r < count and i < n.
template <int64_t count, class T, class B>
PYGAN_HD void dot_rows(const T* a, int64_t stride, const B* b, int64_t n, Acc<T>* out) {
  Lanes<Acc<T>> sums[count] = {}, x, y;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    load_lanes(y, b + i);
    for (int64_t r = 0; r < count; ++r) {
      load_lanes(x, a + r * stride + i);
      sums[r] += x * y;
    }
  }
  load_lanes(y, b + i, n - i);
  for (int64_t r = 0; r < count; ++r) {
    load_lanes(x, a + r * stride + i, n - i);
    out[r] = tree_sum<Acc<T>>(sums[r] + x * y);
  }
}

template <class T, class B>
PYGAN_HD Acc<T> dot(const T* a, const B* b, int64_t n) {
  Acc<T> sum;
  dot_rows<1>(a, n, b, n, &sum);
  return sum;
}

// Last rows first: the pass before this one left them in the cache.
template <class T>
void matrix_vector(const T* w, int64_t cols, const Acc<T>* in, Acc<T>* out, int64_t begin, int64_t end) {
  int64_t row = end;
  for (; row - begin >= rows_at_once; row -= rows_at_once) {
    const int64_t first = row - rows_at_once;
    dot_rows<rows_at_once>(w + first * cols, cols, in, cols, out + first);
  }
  for (; row > begin; --row) out[row - 1] = dot(w + (row - 1) * cols, in, cols);
}

template <class T>
void transposed_vector(const T* w, int64_t rows, int64_t cols, const Acc<T>* in, Acc<T>* out, int64_t begin,
                       int64_t end) {
  using A = Acc<T>;
  for (int64_t first = begin; first < end; first += columns_at_once) {
    const int64_t count = end - first < columns_at_once ? end - first : columns_at_once;
    A* __restrict sums = out + first;
    for (int64_t j = 0; j < count; ++j) sums[j] = A(0);
    int64_t row = 0;
    for (; row + rows_at_once <= rows; row += rows_at_once) {
      const T* __restrict line = w + row * cols + first;
      const A a = in[row], b = in[row + 1], c = in[row + 2], d = in[row + 3];
      for (int64_t j = 0; j < count; ++j) {
        sums[j] += (a * load(line[j]) + b * load(line[cols + j])) +
                   (c * load(line[2 * cols + j]) + d * load(line[3 * cols + j]));
      }
    }
    for (; row < rows; ++row) {
      const T* __restrict line = w + row * cols + first;
      for (int64_t j = 0; j < count; ++j) sums[j] += in[row] * load(line[j]);
    }
  }
}

template <class A>
double normalize(A* x, int64_t size, double eps) {
  Lanes<double> sums = {};
  for (int64_t i = 0; i < size; i += lanes) {
    double values[lanes] = {};
    for (int64_t lane = 0; lane < lanes && i + lane < size; ++lane) values[lane] = double(x[i + lane]);
    Lanes<double> y;
    __builtin_memcpy(&y, values, sizeof y);
    sums += y * y;
  }
  const double norm = std::sqrt(tree_sum<double>(sums));
  const A factor = A(inverse_norm(norm, eps));
  for (int64_t i = 0; i < size; ++i) x[i] *= factor;
  return norm;
}

template <class T>
void scale(const Matrix& m, double factor, void* to, int64_t begin, int64_t end) {
  const T* __restrict w = static_cast<const T*>(m.w);
  T* __restrict y = static_cast<T*>(to);
  const Acc<T> a = Acc<T>(factor);
  for (int64_t i = begin; i < end; ++i) store(y[i], load(w[i]) * a);
}

template <class T>
void inner_products(const NormalizeGradParams& p, int64_t begin, int64_t end) {
  const T* dy = static_cast<const T*>(p.dy);
  const T* w = static_cast<const T*>(p.w.w);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * p.w.cols;
    static_cast<Acc<T>*>(p.partial)[row] = dot(dy + first, w + first, p.w.cols);
  }
}

// Last rows first: the inner products left them in the cache.
template <class T>
void normalize_grad(const NormalizeGradParams& p, double dy_factor, double uv_factor, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const A* __restrict v = static_cast<const A*>(p.v);
  const A a = A(dy_factor);
  for (int64_t row = end - 1; row >= begin; --row) {
    const T* __restrict dy = static_cast<const T*>(p.dy) + row * p.w.cols;
    T* __restrict dw = static_cast<T*>(p.dw) + row * p.w.cols;
    const A b = A(uv_factor) * static_cast<const A*>(p.u)[row];
    for (int64_t j = 0; j < p.w.cols; ++j) store(dw[j], load(dy[j]) * a + b * v[j]);
  }
}

template <class T>
void group_power_iteration(const GroupLayer& layer, int64_t index, int64_t n_power_iterations, double eps) {
  using A = Acc<T>;
  const int64_t rows = layer.rows, cols = layer.cols;
  const T* e = static_cast<const T*>(layer.e) + index * rows * cols;
  const A* u_in = static_cast<const A*>(layer.u_in) + index * rows;
  const A* v_in = static_cast<const A*>(layer.v_in) + index * cols;
  A* u = static_cast<A*>(layer.u) + index * rows;
  A* v = static_cast<A*>(layer.v) + index * cols;
  A* sigma = static_cast<A*>(layer.sigma) + index;
  if (n_power_iterations == 0) {
    for (int64_t j = 0; j < cols; ++j) v[j] = v_in[j];
    matrix_vector(e, cols, v, u, 0, rows);
    *sigma = dot(u_in, u, rows);
    for (int64_t i = 0; i < rows; ++i) u[i] = u_in[i];
  }
  for (int64_t iteration = 0; iteration < n_power_iterations; ++iteration) {
    transposed_vector(e, rows, cols, iteration == 0 ? u_in : u, v, 0, cols);
    normalize(v, cols, eps);
    matrix_vector(e, cols, v, u, 0, rows);
    *sigma = A(sigma_of_norm(normalize(u, rows, eps), eps));
  }
}

}  // namespace

template <>
void matrix_vector_cpu<Isa::PYGAN_ISA>(const Matrix& m, const void* in, void* out, int64_t begin, int64_t end) {
  dispatch(m.dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    matrix_vector(static_cast<const T*>(m.w), m.cols, static_cast<const Acc<T>*>(in), static_cast<Acc<T>*>(out), begin,
                  end);
  });
}

template <>
void transposed_vector_cpu<Isa::PYGAN_ISA>(const Matrix& m, const void* in, void* out, int64_t begin, int64_t end) {
  dispatch(m.dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    transposed_vector(static_cast<const T*>(m.w), m.rows, m.cols, static_cast<const Acc<T>*>(in),
                      static_cast<Acc<T>*>(out), begin, end);
  });
}

template <>
double normalize_cpu<Isa::PYGAN_ISA>(void* x, int64_t size, double eps, Dtype dtype) {
  if (dtype == Dtype::f64) return normalize(static_cast<double*>(x), size, eps);
  return normalize(static_cast<float*>(x), size, eps);
}

template <>
void scale_cpu<Isa::PYGAN_ISA>(const Matrix& m, double factor, void* y, int64_t begin, int64_t end) {
  dispatch(m.dtype, [&](auto* element) { scale<std::remove_pointer_t<decltype(element)>>(m, factor, y, begin, end); });
}

template <>
void inner_products_cpu<Isa::PYGAN_ISA>(const NormalizeGradParams& p, int64_t begin, int64_t end) {
  dispatch(p.w.dtype, [&](auto* element) { inner_products<std::remove_pointer_t<decltype(element)>>(p, begin, end); });
}

template <>
void normalize_grad_cpu<Isa::PYGAN_ISA>(const NormalizeGradParams& p, double dy_factor, double uv_factor, int64_t begin,
                                        int64_t end) {
  dispatch(p.w.dtype, [&](auto* element) {
    normalize_grad<std::remove_pointer_t<decltype(element)>>(p, dy_factor, uv_factor, begin, end);
  });
}

template <>
void group_power_iteration_cpu<Isa::PYGAN_ISA>(const GroupParams& p, int64_t begin, int64_t end) {
  dispatch(p.dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    for (int64_t i = begin; i < end; ++i) {
      group_power_iteration<T>(p.layer[i / p.classes], i % p.classes, p.n_power_iterations, p.eps);
    }
  });
}

}  // namespace pygan

// spectral_sigma as a torch operator: schema, checks, threads and the order of the power iteration.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <tuple>

#include "common/tensor.h"
#include "spectral_norm/spectral_norm.h"

namespace pygan {
namespace {

constexpr int64_t elements_per_thread = 1 << 15;

int64_t grain(int64_t length) { return length > 0 ? elements_per_thread / length + 1 : 1; }

// Divides x by max(|x|, eps) and returns |x|.
template <class A>
double normalize(A* x, int64_t n, double eps) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += double(x[i]) * double(x[i]);
  const double norm = std::sqrt(squares);
  const A scale = A(1 / (norm < eps ? eps : norm));  // NaN stays NaN
  for (int64_t i = 0; i < n; ++i) x[i] *= scale;
  return norm;
}

template <class A>
void power_iteration(const Tensor& weight, Dtype dtype, const Tensor& sigma, const Tensor& u, const Tensor& v,
                     int64_t n_power_iterations, double eps) {
  const int64_t rows = u.size(0), cols = v.size(0);
  A* const u_data = static_cast<A*>(u.mutable_data_ptr());
  A* const v_data = static_cast<A*>(v.mutable_data_ptr());
  A* const sigma_data = static_cast<A*>(sigma.mutable_data_ptr());

  const auto matrix_vector = [&](const A* in, A* out) {
    const MatrixParams p{weight.const_data_ptr(), rows, cols, dtype, in, out};
    const auto kernel = PYGAN_BEST_ISA(matrix_vector_cpu);
    torch::stable::parallel_for(0, rows, grain(cols), [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
  };
  const auto transposed_vector = [&](const A* in, A* out) {
    const MatrixParams p{weight.const_data_ptr(), rows, cols, dtype, in, out};
    const auto kernel = PYGAN_BEST_ISA(transposed_vector_cpu);
    torch::stable::parallel_for(0, cols, grain(rows), [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
  };

  if (n_power_iterations == 0) {
    const Tensor product = torch::stable::empty_like(u);
    const A* const product_data = static_cast<const A*>(product.const_data_ptr());
    matrix_vector(v_data, static_cast<A*>(product.mutable_data_ptr()));
    double sum = 0;
    for (int64_t i = 0; i < rows; ++i) sum += double(u_data[i]) * double(product_data[i]);
    *sigma_data = A(sum);
    return;
  }
  for (int64_t i = 0; i < n_power_iterations; ++i) {
    transposed_vector(u_data, v_data);
    normalize(v_data, cols, eps);
    matrix_vector(v_data, u_data);
    const double norm = normalize(u_data, rows, eps);
    *sigma_data = A(norm < eps ? norm * norm / eps : norm);  // u^T W v, and W v is |W v| u
  }
}

std::tuple<Tensor, Tensor, Tensor> spectral_sigma(Tensor weight, Tensor u, Tensor v, int64_t n_power_iterations,
                                                  double eps) {
  const Dtype dtype = dtype_of(weight, "spectral_sigma");
  const ScalarType vector_type = dtype == Dtype::f64 ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(u.dim() == 1 && v.dim() == 1 && weight.dim() >= 2 && u.size(0) == weight.size(0) &&
                      u.size(0) * v.size(0) == weight.numel(),
                  "spectral_sigma: weight must be [O, ...], u [O] and v [weight.numel() / O]");
  STD_TORCH_CHECK(u.scalar_type() == vector_type && v.scalar_type() == vector_type,
                  "spectral_sigma: u and v must be float64 for a float64 weight, else float32");
  STD_TORCH_CHECK(n_power_iterations >= 0, "spectral_sigma: n_power_iterations must be at least 0");
  weight = torch::stable::contiguous(weight);
  u = torch::stable::clone(torch::stable::contiguous(u));
  v = torch::stable::clone(torch::stable::contiguous(v));
  Tensor sigma = torch::stable::new_empty(u, {});
  if (dtype == Dtype::f64) {
    power_iteration<double>(weight, dtype, sigma, u, v, n_power_iterations, eps);
  } else {
    power_iteration<float>(weight, dtype, sigma, u, v, n_power_iterations, eps);
  }
  return {sigma, u, v};
}

}  // namespace
}  // namespace pygan

STABLE_TORCH_LIBRARY_FRAGMENT(pygan, m) {
  m.def(
      "spectral_sigma(Tensor weight, Tensor u, Tensor v, int n_power_iterations, float eps) "
      "-> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(pygan, CPU, m) { m.impl("spectral_sigma", TORCH_BOX(&pygan::spectral_sigma)); }

// spectral_sigma, spectral_normalize and group_spectral_sigma as torch operators: schemas, checks and threads.
#include <cstring>
#include <tuple>
#include <vector>

#include "common/tensor.h"
#include "spectral_norm/spectral_norm.h"

namespace pygan {
namespace {

constexpr int64_t elements_per_thread = 1 << 15;

int64_t grain(int64_t length) { return length > 0 ? elements_per_thread / length + 1 : 1; }

// Vectors and sigma have this type.
ScalarType vector_type(Dtype dtype) { return dtype == Dtype::f64 ? ScalarType::Double : ScalarType::Float; }

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool is_channels_last(const Tensor& weight) {
  return weight.dim() == 4 && weight.stride(1) == 1 && weight.size(1) > 1;
}

// The dispatcher's own way to a new tensor costs more than the iteration of a small layer.
Tensor empty_strided(const Tensor& like, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                     ScalarType type) {
  using torch::stable::detail::from, torch::stable::detail::to;
  int32_t device_type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(),
                                                         to<int32_t>(from(type)), device_type,
                                                         like.get_device_index(), &handle));
  return Tensor(handle);
}

Tensor empty_vector(const Tensor& like, int64_t size) { return empty_strided(like, {size}, {1}, like.scalar_type()); }

// The layout of the output and the one the kernels read: channels_last or contiguous, by the rule of `_output_format`
// in pygan/ops/spectral_norm.py.
std::vector<int64_t> strides_for(const Tensor& weight) {
  const int64_t dims = weight.dim();
  std::vector<int64_t> strides(dims);
  int64_t stride = 1;
  if (is_channels_last(weight)) {
    strides[1] = 1;
    stride = weight.size(1);
  }
  for (int64_t i = dims - 1; i >= 0; --i) {
    if (i == 1 && is_channels_last(weight)) continue;
    strides[i] = stride;
    stride *= weight.size(i) > 1 ? weight.size(i) : 1;
  }
  return strides;
}

// Of one element and more, where the strides of dimensions of size 1 mean nothing.
bool has_strides(const Tensor& x, const std::vector<int64_t>& strides) {
  for (int64_t i = 0; i < x.dim(); ++i) {
    if (x.size(i) > 1 && x.stride(i) != strides[i]) return false;
  }
  return true;
}

Tensor empty_in(const std::vector<int64_t>& strides, const Tensor& like) {
  return empty_strided(like, {like.sizes().begin(), like.sizes().end()}, strides, like.scalar_type());
}

Tensor with_strides(const Tensor& x, const std::vector<int64_t>& strides) {
  if (has_strides(x, strides)) return x;
  Tensor copy = empty_in(strides, x);
  return torch::stable::copy_(copy, x);
}

Tensor made_contiguous(const Tensor& x) { return x.is_contiguous() ? x : torch::stable::contiguous(x); }

// `dense` holds the elements of `weight` in the strides that strides_for names.
Matrix matrix_of(const Tensor& weight, const Tensor& dense, Dtype dtype) {
  const int64_t rows = weight.size(0);
  return {dense.const_data_ptr(), rows, weight.numel() / rows, is_channels_last(weight) ? weight.size(1) : 1, dtype};
}

void check_vectors(const Tensor& weight, const Tensor& u, const Tensor& v, Dtype dtype) {
  const int64_t rows = weight.dim() > 0 ? weight.size(0) : 0;
  STD_TORCH_CHECK(weight.dim() >= 2 && u.dim() == 1 && v.dim() == 1 && u.size(0) == rows &&
                      v.size(0) == (rows ? weight.numel() / rows : 0),
                  "spectral_norm: weight must be [O, ...], u [O] and v [weight.numel() / O]");
  STD_TORCH_CHECK(u.scalar_type() == vector_type(dtype) && v.scalar_type() == vector_type(dtype),
                  "spectral_norm: u and v must be float64 for a float64 weight, else float32");
}

// to[j] = v[index_in_v(j)]
template <class A>
void into_memory_order(const Matrix& m, const Tensor& v, const Tensor& to) {
  const A* from = static_cast<const A*>(v.const_data_ptr());
  A* out = static_cast<A*>(to.mutable_data_ptr());
  for (int64_t j = 0; j < m.cols; ++j) out[j] = from[index_in_v(j, m.channels, m.cols)];
}

// to[index_in_v(j)] = v[j]
template <class A>
void from_memory_order(const Matrix& m, const Tensor& v, const Tensor& to) {
  const A* from = static_cast<const A*>(v.const_data_ptr());
  A* out = static_cast<A*>(to.mutable_data_ptr());
  for (int64_t j = 0; j < m.cols; ++j) out[index_in_v(j, m.channels, m.cols)] = from[j];
}

void matrix_vector(const Matrix& m, const Tensor& in, const Tensor& out) {
  const auto kernel = PYGAN_BEST_ISA(matrix_vector_cpu);
  torch::stable::parallel_for(0, m.rows, grain(m.cols), [&](int64_t begin, int64_t end) {
    kernel(m, in.const_data_ptr(), out.mutable_data_ptr(), begin, end);
  });
}

void transposed_vector(const Matrix& m, const Tensor& in, const Tensor& out) {
  const auto kernel = PYGAN_BEST_ISA(transposed_vector_cpu);
  torch::stable::parallel_for(0, m.cols, grain(m.rows), [&](int64_t begin, int64_t end) {
    kernel(m, in.const_data_ptr(), out.mutable_data_ptr(), begin, end);
  });
}

double normalize(const Matrix& m, const Tensor& x, double eps) {
  return PYGAN_BEST_ISA(normalize_cpu)(x.mutable_data_ptr(), x.numel(), eps, m.dtype);
}

template <class A>
A element_sum(const Tensor& a, const Tensor& b) {
  double sum = 0;
  const A* x = static_cast<const A*>(a.const_data_ptr());
  const A* y = static_cast<const A*>(b.const_data_ptr());
  for (int64_t i = 0; i < a.numel(); ++i) sum += double(x[i]) * double(y[i]);
  return A(sum);
}

// Returns sigma; new vectors are in u and v.
template <class A>
A power_iteration_cpu(const Matrix& m, const Tensor& u_in, const Tensor& v_in, const Tensor& u, const Tensor& v,
                      int64_t n_power_iterations, double eps) {
  const Tensor v_in_order = m.channels == 1 ? v : empty_vector(v, v.numel());
  if (n_power_iterations == 0) {
    into_memory_order<A>(m, v_in, v_in_order);
    matrix_vector(m, v_in_order, u);
    const A sigma = element_sum<A>(u_in, u);
    std::memcpy(u.mutable_data_ptr(), u_in.const_data_ptr(), m.rows * sizeof(A));
    std::memcpy(v.mutable_data_ptr(), v_in.const_data_ptr(), m.cols * sizeof(A));
    return sigma;
  }
  double norm = 0;
  for (int64_t i = 0; i < n_power_iterations; ++i) {
    transposed_vector(m, i == 0 ? u_in : u, v_in_order);
    normalize(m, v_in_order, eps);
    matrix_vector(m, v_in_order, u);
    norm = normalize(m, u, eps);
  }
  if (m.channels != 1) from_memory_order<A>(m, v_in_order, v);
  return A(sigma_of_norm(norm, eps));
}

template <class A>
void run_cpu(const Matrix& m, const Tensor& u_in, const Tensor& v_in, const Tensor& u, const Tensor& v,
             const Tensor& sigma, Tensor* y, int64_t n_power_iterations, double eps) {
  const A value = power_iteration_cpu<A>(m, u_in, v_in, u, v, n_power_iterations, eps);
  *static_cast<A*>(sigma.mutable_data_ptr()) = value;
  if (!y) return;
  const auto kernel = PYGAN_BEST_ISA(scale_cpu);
  torch::stable::parallel_for(0, m.rows * m.cols, elements_per_thread, [&](int64_t begin, int64_t end) {
    kernel(m, 1 / double(value), y->mutable_data_ptr(), begin, end);
  });
}

void run_cuda(const Matrix& m, const Tensor& u_in, const Tensor& v_in, const Tensor& u, const Tensor& v,
              const Tensor& sigma, Tensor* y, int64_t n_power_iterations, double eps) {
  const OnDeviceOf device(u);
  const Tensor v_scratch = empty_vector(v, m.cols), u_scratch = empty_vector(u, m.rows);
  const Tensor squares = empty_vector(v, ceil_div(m.cols, columns_of_tile));
  const Tensor done = empty_strided(v, {1}, {1}, ScalarType::Int);
  const PowerIterationParams p{m,
                               u_in.const_data_ptr(),
                               v_in.const_data_ptr(),
                               u.mutable_data_ptr(),
                               v.mutable_data_ptr(),
                               sigma.mutable_data_ptr(),
                               y ? y->mutable_data_ptr() : nullptr,
                               v_scratch.mutable_data_ptr(),
                               u_scratch.mutable_data_ptr(),
                               squares.mutable_data_ptr(),
                               static_cast<unsigned*>(done.mutable_data_ptr()),
                               n_power_iterations,
                               eps};
  if constexpr (has_cuda_kernels) power_iteration_cuda(p, device.stream());
}

// sigma, u, v and, where `y` is given, y = weight / sigma in the layout that format_of names.
std::tuple<Tensor, Tensor, Tensor> run(const Tensor& weight, Tensor u_in, Tensor v_in, int64_t n_power_iterations,
                                       double eps, Tensor* y) {
  const Dtype dtype = dtype_of(weight, "spectral_norm");
  check_vectors(weight, u_in, v_in, dtype);
  STD_TORCH_CHECK(n_power_iterations >= 0, "spectral_norm: n_power_iterations must be at least 0");
  const std::vector<int64_t> strides = strides_for(weight);
  u_in = made_contiguous(u_in);
  v_in = made_contiguous(v_in);
  Tensor u = empty_vector(u_in, u_in.numel()), v = empty_vector(v_in, v_in.numel());
  Tensor sigma = empty_strided(u, {}, {}, u.scalar_type());
  if (y) *y = empty_in(strides, weight);
  if (weight.numel() == 0) {
    torch::stable::zero_(sigma);
    if (n_power_iterations == 0) return {sigma, torch::stable::copy_(u, u_in), torch::stable::copy_(v, v_in)};
    return {sigma, torch::stable::zero_(u), torch::stable::zero_(v)};
  }

  const Tensor dense = with_strides(weight, strides);
  const Matrix m = matrix_of(weight, dense, dtype);
  if (on_cuda(weight)) {
    run_cuda(m, u_in, v_in, u, v, sigma, y, n_power_iterations, eps);
  } else if constexpr (has_cpu_kernels) {
    (dtype == Dtype::f64 ? run_cpu<double> : run_cpu<float>)(m, u_in, v_in, u, v, sigma, y, n_power_iterations, eps);
  }
  return {sigma, u, v};
}

std::tuple<Tensor, Tensor, Tensor> spectral_sigma(Tensor weight, Tensor u, Tensor v, int64_t n_power_iterations,
                                                  double eps) {
  return run(weight, u, v, n_power_iterations, eps, nullptr);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> spectral_normalize(Tensor weight, Tensor u, Tensor v,
                                                              int64_t n_power_iterations, double eps) {
  Tensor y;
  auto [sigma, new_u, new_v] = run(weight, u, v, n_power_iterations, eps, &y);
  return {y, sigma, new_u, new_v};
}

template <class A>
void grad_cpu(NormalizeGradParams p, const Tensor& v) {
  const Matrix& m = p.w;
  const Tensor v_in_order = m.channels == 1 ? v : empty_vector(v, m.cols);
  if (m.channels != 1) into_memory_order<A>(m, v, v_in_order);
  p.v = v_in_order.const_data_ptr();

  const auto inner_products = PYGAN_BEST_ISA(inner_products_cpu);
  torch::stable::parallel_for(0, m.rows, grain(m.cols),
                              [&](int64_t begin, int64_t end) { inner_products(p, begin, end); });
  double product = 0;
  for (int64_t row = 0; row < m.rows; ++row) product += double(static_cast<const A*>(p.partial)[row]);
  const double sigma = double(*static_cast<const A*>(p.sigma));

  const auto kernel = PYGAN_BEST_ISA(normalize_grad_cpu);
  torch::stable::parallel_for(0, m.rows, grain(m.cols), [&](int64_t begin, int64_t end) {
    kernel(p, 1 / sigma, -product / (sigma * sigma), begin, end);
  });
}

Tensor spectral_normalize_grad(Tensor dy, Tensor weight, Tensor sigma, Tensor u, Tensor v) {
  const Dtype dtype = dtype_of(weight, "spectral_norm");
  check_vectors(weight, u, v, dtype);
  STD_TORCH_CHECK(dy.sizes() == weight.sizes() && dy.scalar_type() == weight.scalar_type(),
                  "spectral_norm: dy must have the shape and dtype of weight");
  STD_TORCH_CHECK(sigma.numel() == 1 && sigma.scalar_type() == vector_type(dtype),
                  "spectral_norm: sigma must be one number of u's dtype");
  const std::vector<int64_t> strides = strides_for(weight);
  Tensor dw = empty_in(strides, weight);
  if (weight.numel() == 0) return dw;

  const Tensor dense = with_strides(weight, strides), dense_dy = with_strides(dy, strides);
  u = made_contiguous(u);
  v = made_contiguous(v);
  NormalizeGradParams p{matrix_of(weight, dense, dtype), dense_dy.const_data_ptr(), u.const_data_ptr(),
                        v.const_data_ptr(), sigma.const_data_ptr(), dw.mutable_data_ptr(), nullptr};
  const bool cuda = on_cuda(weight);
  const Tensor partial = empty_vector(u, cuda ? p.max_blocks : p.w.rows);
  p.partial = partial.mutable_data_ptr();
  if (cuda) {
    if constexpr (has_cuda_kernels) {
      const OnDeviceOf device(weight);
      normalize_grad_cuda(p, device.stream());
    }
  } else if constexpr (has_cpu_kernels) {
    (dtype == Dtype::f64 ? grad_cpu<double> : grad_cpu<float>)(p, v);
  }
  return dw;
}

void check_group(const std::vector<Tensor>& es, const std::vector<Tensor>& us, const std::vector<Tensor>& vs) {
  STD_TORCH_CHECK(!es.empty() && es.size() == us.size() && es.size() == vs.size(),
                  "group_spectral_sigma: Es, us and vs must be as many, and at least one");
  for (size_t i = 0; i < es.size(); ++i) {
    const Tensor &e = es[i], &u = us[i], &v = vs[i];
    const ScalarType type = vector_type(dtype_of(e, "group_spectral_sigma"));
    STD_TORCH_CHECK(e.dim() == 3 && u.dim() == 2 && v.dim() == 2 && u.size(0) == e.size(0) && v.size(0) == e.size(0) &&
                        u.size(1) == e.size(1) && v.size(1) == e.size(2) && e.size(0) == es[0].size(0),
                    "group_spectral_sigma: each E must be [C, h, w], its u [C, h] and its v [C, w]");
    STD_TORCH_CHECK(e.scalar_type() == es[0].scalar_type() && u.scalar_type() == type && v.scalar_type() == type,
                    "group_spectral_sigma: every E must have one dtype, u and v float64 for float64, else float32");
  }
}

void run_group(const GroupParams& p, const Tensor& first) {
  if (on_cuda(first)) {
    if constexpr (has_cuda_kernels) {
      const OnDeviceOf device(first);
      group_power_iteration_cuda(p, device.stream());
    }
  } else if constexpr (has_cpu_kernels) {
    const auto kernel = PYGAN_BEST_ISA(group_power_iteration_cpu);
    const int64_t elements = first.numel() / p.classes * (2 * p.n_power_iterations + 1);
    torch::stable::parallel_for(0, p.layers * p.classes, grain(elements),
                                [&](int64_t begin, int64_t end) { kernel(p, begin, end); });
  }
}

std::tuple<Tensor, std::vector<Tensor>, std::vector<Tensor>> group_spectral_sigma(std::vector<Tensor> es,
                                                                                  std::vector<Tensor> us,
                                                                                  std::vector<Tensor> vs,
                                                                                  int64_t n_power_iterations,
                                                                                  double eps) {
  check_group(es, us, vs);
  STD_TORCH_CHECK(n_power_iterations >= 0, "group_spectral_sigma: n_power_iterations must be at least 0");
  const int64_t layers = int64_t(es.size()), classes = es[0].size(0);
  const Dtype dtype = dtype_of(es[0], "group_spectral_sigma");
  const Tensor sigma = empty_strided(us[0], {layers, classes}, {classes, 1}, us[0].scalar_type());
  std::vector<Tensor> new_us, new_vs;
  for (int64_t l = 0; l < layers; ++l) {
    es[l] = made_contiguous(es[l]);
    us[l] = made_contiguous(us[l]);
    vs[l] = made_contiguous(vs[l]);
    const int64_t rows = us[l].size(1), cols = vs[l].size(1);
    new_us.push_back(empty_strided(us[l], {classes, rows}, {rows, 1}, us[l].scalar_type()));
    new_vs.push_back(empty_strided(vs[l], {classes, cols}, {cols, 1}, vs[l].scalar_type()));
  }
  if (classes == 0) return {sigma, new_us, new_vs};

  const int64_t element = dtype == Dtype::f64 ? sizeof(double) : sizeof(float);
  for (int64_t first = 0; first < layers; first += max_group_layers) {
    GroupParams p{};
    p.layers = layers - first < max_group_layers ? layers - first : max_group_layers;
    p.classes = classes;
    p.n_power_iterations = n_power_iterations;
    p.eps = eps;
    p.dtype = dtype;
    for (int64_t i = 0; i < p.layers; ++i) {
      const int64_t l = first + i;
      p.layer[i] = {es[l].const_data_ptr(),
                    us[l].const_data_ptr(),
                    vs[l].const_data_ptr(),
                    new_us[l].mutable_data_ptr(),
                    new_vs[l].mutable_data_ptr(),
                    static_cast<char*>(sigma.mutable_data_ptr()) + l * classes * element,
                    es[l].size(1),
                    es[l].size(2)};
    }
    run_group(p, es[0]);
  }
  return {sigma, new_us, new_vs};
}

void kernels(auto& m) {
  m.impl("spectral_sigma", TORCH_BOX(&spectral_sigma));
  m.impl("spectral_normalize", TORCH_BOX(&spectral_normalize));
  m.impl("spectral_normalize_grad", TORCH_BOX(&spectral_normalize_grad));
  m.impl("group_spectral_sigma", TORCH_BOX(&group_spectral_sigma));
}

}  // namespace
}  // namespace pygan

STABLE_TORCH_LIBRARY_FRAGMENT(PYGAN_NAMESPACE, m) {
  m.def(
      "spectral_sigma(Tensor weight, Tensor u, Tensor v, int n_power_iterations, float eps) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "spectral_normalize(Tensor weight, Tensor u, Tensor v, int n_power_iterations, float eps) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def("spectral_normalize_grad(Tensor dy, Tensor weight, Tensor sigma, Tensor u, Tensor v) -> Tensor");
  m.def(
      "group_spectral_sigma(Tensor[] Es, Tensor[] us, Tensor[] vs, int n_power_iterations, float eps) "
      "-> (Tensor, Tensor[], Tensor[])");
}

PYGAN_REGISTER(pygan::kernels)

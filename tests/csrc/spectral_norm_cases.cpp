#include <cmath>

#include "cases.h"
#include "spectral_norm/spectral_norm.h"

namespace pygan::test {
namespace {

using Doubles = std::vector<double>;

template <class T>
constexpr Dtype dtype_of_type = Dtype::f32;
template <>
constexpr Dtype dtype_of_type<double> = Dtype::f64;
template <>
constexpr Dtype dtype_of_type<Half> = Dtype::f16;

template <class T>
std::vector<T> as(const std::vector<float>& values) {
  std::vector<T> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) store(result[i], values[i]);
  return result;
}

template <class T>
Doubles doubles(const std::vector<T>& values) {
  Doubles result;
  for (const T& value : values) result.push_back(double(load(value)));
  return result;
}

double dot(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The formula, in double loops.
struct PowerIteration {
  Doubles u, v;
  double sigma;

  PowerIteration(const Doubles& w, Doubles u0, Doubles v0, int64_t n, double eps) : u(u0), v(v0) {
    for (int64_t i = 0; i < n; ++i) {
      for (size_t c = 0; c < v.size(); ++c) v[c] = column(w, c);
      divide(v, eps);
      u = times_v(w);
      divide(u, eps);
    }
    sigma = dot(u, times_v(w));
  }

 private:
  double column(const Doubles& w, size_t c) const {
    double sum = 0;
    for (size_t r = 0; r < u.size(); ++r) sum += w[r * v.size() + c] * u[r];
    return sum;
  }

  Doubles times_v(const Doubles& w) const {
    Doubles product(u.size());
    for (size_t r = 0; r < u.size(); ++r) {
      for (size_t c = 0; c < v.size(); ++c) product[r] += w[r * v.size() + c] * v[c];
    }
    return product;
  }

  static void divide(Doubles& x, double eps) {
    const double norm = std::sqrt(dot(x, x));
    for (double& value : x) value /= norm < eps ? eps : norm;
  }
};

// Elements of a vector of columns, from the order of the weight's shape to that of the memory or back.
Doubles in_memory_order(const Doubles& v, int64_t channels) {
  Doubles result(v.size());
  for (size_t j = 0; j < v.size(); ++j) result[j] = v[size_t(index_in_v(int64_t(j), channels, int64_t(v.size())))];
  return result;
}

Doubles in_shape_order(const Doubles& v, int64_t channels) {
  Doubles result(v.size());
  for (size_t j = 0; j < v.size(); ++j) result[size_t(index_in_v(int64_t(j), channels, int64_t(v.size())))] = v[j];
  return result;
}

struct Shape {
  int64_t rows, cols, channels = 1;
};

template <class T>
void iterate(Memory& memory, Shape shape, int64_t n, int64_t max_blocks, bool check) {
  using A = Acc<T>;
  const size_t rows = size_t(shape.rows), cols = size_t(shape.cols);
  const auto w = as<T>(numbers(rows * cols, 1));
  const auto u = as<A>(numbers(rows, 2)), v = as<A>(numbers(cols, 3));
  A* new_u = memory.output<A>(rows);
  A* new_v = memory.output<A>(cols);
  A* sigma = memory.output<A>(1);
  T* y = memory.output<T>(rows * cols);
  PowerIterationParams p{{memory.input(w), shape.rows, shape.cols, shape.channels, dtype_of_type<T>},
                         memory.input(u),
                         memory.input(v),
                         new_u,
                         new_v,
                         sigma,
                         y,
                         memory.output<A>(cols),
                         memory.output<A>(rows),
                         memory.output<A>((cols + columns_of_tile - 1) / columns_of_tile),
                         memory.output<unsigned>(1),
                         n,
                         1e-12};
  if (max_blocks) p.max_blocks = max_blocks;
  power_iteration_cuda(p, nullptr);
  memory.allow(size_t(2 * n) * rows * cols * sizeof(T));       // every product and the division read the matrix
  memory.allow(size_t(n) * rows * cols * sizeof(A) + (1 << 20));  // v for each row, from the cache
  if (!check) return;
  const double tolerance = sizeof(A) == 8 ? 1e-12 : 1e-5;
  const PowerIteration expected(doubles(w), doubles(u), in_memory_order(doubles(v), shape.channels), n, 1e-12);
  memory.expect(sigma, {expected.sigma}, tolerance * std::fabs(expected.sigma));
  memory.expect(new_u, expected.u, tolerance);
  memory.expect(new_v, in_shape_order(expected.v, shape.channels), tolerance);
  Doubles normalized = doubles(w);
  for (double& value : normalized) value /= expected.sigma;
  memory.expect(y, normalized, sizeof(T) == 2 ? 1e-3 : tolerance);
}

template <class T>
void differentiate(Memory& memory, Shape shape, int64_t max_blocks, bool check) {
  using A = Acc<T>;
  const size_t rows = size_t(shape.rows), cols = size_t(shape.cols);
  const auto w = as<T>(numbers(rows * cols, 1)), dy = as<T>(numbers(rows * cols, 2));
  const auto u = as<A>(numbers(rows, 3)), v = as<A>(numbers(cols, 4)), sigma = as<A>({2.5f});
  T* dw = memory.output<T>(rows * cols);
  NormalizeGradParams p{{memory.input(w), shape.rows, shape.cols, shape.channels, dtype_of_type<T>},
                        memory.input(dy),
                        memory.input(u),
                        memory.input(v),
                        memory.input(sigma),
                        dw,
                        nullptr};
  if (max_blocks) p.max_blocks = max_blocks;
  p.partial = memory.output<A>(size_t(p.max_blocks));
  normalize_grad_cuda(p, nullptr);
  memory.allow(rows * cols * sizeof(T) + (4 << 20));  // dy a second time; the partial sums for each block
  if (!check) return;
  const double product = dot(doubles(dy), doubles(w));
  const Doubles columns = in_memory_order(doubles(v), shape.channels), rows_of_u = doubles(u);
  Doubles expected = doubles(dy);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] = expected[i] / 2.5 - product / 6.25 * rows_of_u[i / cols] * columns[i % cols];
  }
  const double largest = std::fabs(product) + 1;
  memory.expect(dw, expected, (sizeof(T) == 2 ? 1e-3 : sizeof(A) == 8 ? 1e-12 : 1e-6) * largest);
}

void iterate_groups(Memory& memory, const std::vector<Shape>& shapes, int64_t classes, int64_t n, int64_t max_blocks) {
  GroupParams p{};
  p.layers = int64_t(shapes.size());
  p.classes = classes;
  p.n_power_iterations = n;
  p.eps = 1e-3;
  p.dtype = Dtype::f32;
  if (max_blocks) p.max_blocks = max_blocks;
  std::vector<std::vector<float>> es, us, vs;
  for (size_t l = 0; l < shapes.size(); ++l) {
    const size_t rows = size_t(shapes[l].rows), cols = size_t(shapes[l].cols), count = size_t(classes);
    es.push_back(numbers(count * rows * cols, unsigned(10 + l)));
    us.push_back(numbers(count * rows, unsigned(20 + l)));
    vs.push_back(numbers(count * cols, unsigned(30 + l)));
    p.layer[l] = {memory.input(es[l]),
                  memory.input(us[l]),
                  memory.input(vs[l]),
                  memory.output<float>(count * rows),
                  memory.output<float>(count * cols),
                  memory.output<float>(count),
                  shapes[l].rows,
                  shapes[l].cols};
    memory.allow(size_t(2 * n) * count * rows * cols * sizeof(float));
  }
  group_power_iteration_cuda(p, nullptr);
  for (size_t l = 0; l < shapes.size(); ++l) {
    const size_t rows = size_t(shapes[l].rows), cols = size_t(shapes[l].cols);
    for (size_t c = 0; c < size_t(classes); ++c) {
      const auto part = [c](const std::vector<float>& all, size_t size) {
        return Doubles(all.begin() + long(c * size), all.begin() + long((c + 1) * size));
      };
      const PowerIteration expected(part(es[l], rows * cols), part(us[l], rows), part(vs[l], cols), n, 1e-3);
      memory.expect(static_cast<const float*>(p.layer[l].sigma) + c, {expected.sigma}, 1e-5);
      memory.expect(static_cast<const float*>(p.layer[l].u) + c * rows, expected.u, 1e-5);
      memory.expect(static_cast<const float*>(p.layer[l].v) + c * cols, expected.v, 1e-5);
    }
  }
}

void add_large(std::vector<Case>& cases) {
  const Shape contiguous{1024, 4096}, channels_last{1024, 4096, 512}, half{2048, 4096};
  cases.push_back({"spectral_norm power iteration contiguous f32",
                   [=](Memory& m) { iterate<float>(m, contiguous, 1, 0, false); }});
  cases.push_back({"spectral_norm power iteration channels_last f32",
                   [=](Memory& m) { iterate<float>(m, channels_last, 1, 0, false); }});
  cases.push_back({"spectral_norm power iteration contiguous f16",
                   [=](Memory& m) { iterate<Half>(m, half, 1, 0, false); }});
  cases.push_back({"spectral_norm normalize_grad contiguous f32",
                   [=](Memory& m) { differentiate<float>(m, contiguous, 0, false); }});
  cases.push_back({"spectral_norm normalize_grad channels_last f32",
                   [=](Memory& m) { differentiate<float>(m, channels_last, 0, false); }});
  cases.push_back({"spectral_norm normalize_grad contiguous f16",
                   [=](Memory& m) { differentiate<Half>(m, half, 0, false); }});
}

}  // namespace

void add_spectral_norm_cases(std::vector<Case>& cases, Scale scale) {
  if (scale == Scale::large) return add_large(cases);
  const auto iterates = [&](const char* name, auto element, Shape shape, int64_t n, int64_t max_blocks) {
    cases.push_back({name, [=](Memory& m) { iterate<decltype(element)>(m, shape, n, max_blocks, true); }});
  };
  const auto differentiates = [&](const char* name, auto element, Shape shape, int64_t max_blocks) {
    cases.push_back({name, [=](Memory& m) { differentiate<decltype(element)>(m, shape, max_blocks, true); }});
  };
  iterates("spectral_norm power iteration single elements, a warp a row f32 striding", 0.f, {37, 70}, 2, 2);
  iterates("spectral_norm power iteration single elements, a block a row f32", 0.f, {5, 301}, 1, 0);
  iterates("spectral_norm power iteration vectors, a block a row f32 striding", 0.f, {5, 1100}, 2, 2);
  iterates("spectral_norm power iteration channels_last vectors, a warp a row f32", 0.f, {11, 40, 5}, 1, 0);
  iterates("spectral_norm power iteration of no iteration channels_last f32 striding", 0.f, {21, 300, 6}, 0, 1);
  iterates("spectral_norm power iteration f64", 0.0, {9, 34}, 2, 0);
  iterates("spectral_norm power iteration f16", Half{}, {9, 64}, 1, 0);
  differentiates("spectral_norm normalize_grad single elements f32 striding", 0.f, {37, 301}, 2);
  differentiates("spectral_norm normalize_grad channels_last vectors f32 striding", 0.f, {9, 1100, 5}, 1);
  differentiates("spectral_norm normalize_grad f16", Half{}, {9, 64}, 0);
  const std::vector<Shape> groups = {{5, 7}, {16, 16}, {3, 140}, {150, 4}};
  cases.push_back({"spectral_norm group power iteration f32", [=](Memory& m) { iterate_groups(m, groups, 2, 2, 0); }});
  cases.push_back({"spectral_norm group power iteration f32 striding",
                   [=](Memory& m) { iterate_groups(m, groups, 2, 1, 1); }});
  cases.push_back({"spectral_norm group of no iteration f32 striding",
                   [=](Memory& m) { iterate_groups(m, groups, 2, 0, 1); }});
}

}  // namespace pygan::test

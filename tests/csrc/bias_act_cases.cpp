#include <algorithm>
#include <cmath>
#include <limits>

#include "bias_act/bias_act.h"
#include "cases.h"

namespace pygan::test {
namespace {

constexpr double alpha = 0.2, gain = 1.5, clamp = 1.25;

struct Setting {
  int64_t outer, channels, inner;
  Activation act;
  bool bias_gradient = true;
  int64_t max_blocks = 1 << 16;
};

template <class T>
constexpr Dtype dtype_of = sizeof(T) == 8 ? Dtype::f64 : sizeof(T) == 4 ? Dtype::f32 : Dtype::f16;

template <class T>
std::vector<T> stored(const std::vector<float>& values) {
  std::vector<T> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) store(result[i], Acc<T>(values[i]));
  return result;
}

template <class T>
std::vector<double> read(const std::vector<T>& values) {
  std::vector<double> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) result[i] = double(load(values[i]));
  return result;
}

double activated(Activation act, double z) {
  if (act == Activation::swish) return z / (1 + std::exp(-z));
  return z > 0 ? z : alpha * z;
}

double slope(Activation act, double z) {
  if (act != Activation::swish) return z > 0 ? 1 : alpha;
  const double s = 1 / (1 + std::exp(-z));
  return s + z * s * (1 - s);
}

template <class T>
BiasActParams params(const Setting& s) {
  BiasActParams p{};
  p.size = s.outer * s.channels * s.inner;
  p.channels = s.channels;
  p.inner = s.inner;
  p.dtype = dtype_of<T>;
  p.act = s.act;
  p.alpha = alpha;
  p.gain = gain;
  p.clamp = clamp;
  p.max_blocks = s.max_blocks;
  return p;
}

// The bytes of a bias or of its gradient, read or written by many blocks.
template <class T>
void allow_vectors(Memory& memory, const BiasActParams& p) {
  memory.allow(size_t(bias_act_cuda_workspace(p)) * sizeof(Acc<T>) + size_t(p.channels) * sizeof(T));
}

template <class T>
void forward(Memory& memory, const Setting& s, Scale scale) {
  BiasActParams p = params<T>(s);
  const auto x = stored<T>(numbers(size_t(p.size), 1)), b = stored<T>(numbers(size_t(p.channels), 2));
  T* y = memory.output<T>(x.size());
  p.x = memory.input(x);
  p.b = memory.input(b);
  p.y = y;
  allow_vectors<T>(memory, p);
  bias_act_cuda(p, nullptr);
  if (scale == Scale::large) return;

  std::vector<double> expected = read(x);
  for (int64_t i = 0; i < p.size; ++i) {
    double& value = expected[size_t(i)];
    value = activated(s.act, value + double(load(b[size_t(i / s.inner % s.channels)]))) * gain;
    value = std::min(clamp, std::max(-clamp, value));
  }
  memory.expect(y, expected, sizeof(T) == 2 ? 1e-3 : 1e-6);
}

template <class T>
void gradient(Memory& memory, const Setting& s, Scale scale) {
  BiasActParams p = params<T>(s);
  const auto dy = stored<T>(numbers(size_t(p.size), 1)), b = stored<T>(numbers(size_t(p.channels), 2));
  std::vector<float> inputs = numbers(size_t(p.size), 3);
  if (saves_output(s.act)) {
    for (float& value : inputs) value = float(std::min(clamp, std::max(-clamp, activated(s.act, value) * gain)));
  }
  const auto saved = stored<T>(inputs);
  T* dx = memory.output<T>(dy.size());
  p.x = memory.input(saved);
  p.dy = memory.input(dy);
  p.y = dx;
  if (!saves_output(s.act)) p.b = memory.input(b);
  T* db = nullptr;
  if (s.bias_gradient) {
    p.db = db = memory.output<T>(b.size());
    p.partial = memory.output<Acc<T>>(size_t(bias_act_cuda_workspace(p)));
    allow_vectors<T>(memory, p);
  }
  bias_act_cuda(p, nullptr);
  if (scale == Scale::large) return;

  const std::vector<double> x = read(saved);
  std::vector<double> expected = read(dy), sums(b.size());
  for (int64_t i = 0; i < p.size; ++i) {
    const size_t channel = size_t(i / s.inner % s.channels);
    double z = x[size_t(i)];  // for lrelu the output, whose sign is that of the input
    if (!saves_output(s.act)) z += double(load(b[channel]));
    const double y = saves_output(s.act) ? z : activated(s.act, z) * gain;
    double& value = expected[size_t(i)];
    value = std::fabs(y) >= clamp ? 0 : value * slope(s.act, z) * gain;
    sums[channel] += value;
  }
  const double tolerance = sizeof(T) == 2 ? 2e-3 : 2e-6;
  memory.expect(dx, expected, tolerance);
  if (db) memory.expect(db, sums, 4 * tolerance);
}

}  // namespace

void add_bias_act_cases(std::vector<Case>& cases, Scale scale) {
  const auto add = [&](const std::string& name, auto run, Setting setting) {
    cases.push_back({"bias_act " + name, [=](Memory& memory) { run(memory, setting, scale); }});
  };
  if (scale == Scale::large) {
    const Setting contiguous{16, 64, 4096, Activation::lrelu}, channels_last{16 * 4096, 64, 1, Activation::lrelu};
    add("forward contiguous f32", forward<float>, contiguous);
    add("forward channels_last f32", forward<float>, channels_last);
    add("forward contiguous f16", forward<Half>, {32, 64, 4096, Activation::lrelu});
    add("gradient contiguous f32", gradient<float>, contiguous);
    add("gradient channels_last f32", gradient<float>, channels_last);
    add("gradient channels_last f16", gradient<Half>, {32 * 4096, 64, 1, Activation::lrelu});
    return;
  }
  // Long rows: whole vectors or not, several parts of a channel, more tiles than blocks.
  add("forward long rows f32", forward<float>, {3, 5, 76, Activation::lrelu});
  add("forward long odd rows f16, striding", forward<Half>, {3, 5, 77, Activation::swish, true, 2});
  add("gradient long rows f32", gradient<float>, {2, 3, 4096, Activation::lrelu});
  add("gradient long odd rows f32, striding", gradient<float>, {3, 5, 77, Activation::swish, true, 2});
  add("gradient long rows f16, striding", gradient<Half>, {2, 2, 8192, Activation::lrelu, true, 1});
  add("gradient long rows f64 without bias", gradient<double>, {1, 1, 1028, Activation::lrelu, false});
  // Short rows: columns that fill the threads or not, several parts of the rows, more tiles than blocks.
  add("forward short rows f32", forward<float>, {70, 160, 1, Activation::swish});
  add("forward short odd rows f16, striding", forward<Half>, {40, 7, 3, Activation::lrelu, true, 1});
  add("gradient short rows f32, striding", gradient<float>, {70, 160, 1, Activation::lrelu, true, 2});
  add("gradient short rows of small pictures f32", gradient<float>, {9, 36, 4, Activation::swish});
  add("gradient short odd rows f16, striding", gradient<Half>, {190, 33, 1, Activation::swish, true, 1});
  add("gradient short odd rows f64 without bias", gradient<double>, {1, 1, 7, Activation::lrelu, false});
}

}  // namespace pygan::test

#include "modulated_conv2d/modulated_conv2d.h"

#include <algorithm>
#include <cmath>

#include "cases.h"

namespace pygan::test {
namespace {

template <class T>
std::vector<T> as(const std::vector<float>& values) {
  std::vector<T> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) store(result[i], values[i]);
  return result;
}

struct Sizes {
  int64_t batch, channels, pixels;
  bool channels_last;
  int64_t noise_batch;  // 0: neither noise nor bias, as for the scaling of the input
  Activation act;
  int64_t max_blocks;  // 0: as many as there are tiles

  int64_t count() const { return batch * channels * pixels; }
  int64_t at(int64_t n, int64_t c, int64_t i) const {
    return channels_last ? (n * pixels + i) * channels + c : (n * channels + c) * pixels + i;
  }
};

// The operands on both sides: for the kernels, and to compute what is expected.
template <class T>
struct Operands {
  Sizes s;
  std::vector<T> x, dy;
  std::vector<float> d, noise, b;

  explicit Operands(const Sizes& sizes)
      : s(sizes),
        x(as<T>(numbers(size_t(s.count()), 1))),
        dy(as<T>(numbers(size_t(s.count()), 2))),
        d(numbers(size_t(s.batch * s.channels), 3)),
        noise(numbers(size_t(s.noise_batch * s.pixels), 4)),
        b(numbers(size_t(s.noise_batch ? s.channels : 0), 5)) {}

  ModulatedBiasActParams params(Memory& memory, Dtype dtype) const {
    ModulatedBiasActParams p{};
    p.x = memory.input(x);
    p.d = memory.input(d);
    if (s.noise_batch) {
      p.noise = memory.input(noise);
      p.b = memory.input(b);
    }
    p.batch = s.batch;
    p.channels = s.channels;
    p.pixels = s.pixels;
    p.noise_stride = s.noise_batch > 1 ? s.pixels : 0;
    p.x_channels_last = p.y_channels_last = s.channels_last;
    p.dtype = dtype;
    p.act = s.act;
    p.alpha = 0.2;
    p.gain = 1.5;
    p.clamp = 2;
    if (s.max_blocks) p.max_blocks = s.max_blocks;
    // Each row fetches its own d and b, or noise, a sector for a number; each tile those of its columns.
    memory.allow(size_t(s.count()) * sizeof(T) / 4);
    return p;
  }

  double z(int64_t n, int64_t c, int64_t i) const {
    const double scaled = double(load(x[size_t(s.at(n, c, i))])) * d[size_t(n * s.channels + c)];
    if (!s.noise_batch) return scaled;
    return scaled + noise[size_t((s.noise_batch > 1 ? n : 0) * s.pixels + i)] + b[size_t(c)];
  }
  double y(double z) const { return (s.act == Activation::lrelu && z < 0 ? 0.2 * z : z) * 1.5; }
  double dz(int64_t n, int64_t c, int64_t i) const {
    const double at = z(n, c, i), slope = s.act == Activation::lrelu && at <= 0 ? 0.2 : 1;
    return std::fabs(y(at)) > 2 ? 0 : double(load(dy[size_t(s.at(n, c, i))])) * slope * 1.5;
  }
  template <class F>
  void for_each(F&& fn) const {
    for (int64_t n = 0; n < s.batch; ++n)
      for (int64_t c = 0; c < s.channels; ++c)
        for (int64_t i = 0; i < s.pixels; ++i) fn(n, c, i);
  }
};

template <class T>
void run_forward(Memory& memory, Dtype dtype, const Sizes& s, bool check, double tolerance) {
  const Operands<T> operands(s);
  ModulatedBiasActParams p = operands.params(memory, dtype);
  T* y = memory.output<T>(size_t(s.count()));
  p.y = y;
  modulated_bias_act_cuda(p, nullptr);
  if (!check) return;
  std::vector<double> expected(size_t(s.count()));
  operands.for_each([&](int64_t n, int64_t c, int64_t i) {
    expected[size_t(s.at(n, c, i))] = std::clamp(operands.y(operands.z(n, c, i)), -2.0, 2.0);
  });
  memory.expect(y, expected, tolerance);
}

template <class T>
void run_gradient(Memory& memory, Dtype dtype, const Sizes& s, bool check, double tolerance) {
  const Operands<T> operands(s);
  ModulatedBiasActGradParams g{};
  g.forward = operands.params(memory, dtype);
  g.dy = memory.input(operands.dy);
  T* dx = memory.output<T>(size_t(s.count()));
  float* dd = memory.output<float>(size_t(s.batch * s.channels));
  g.dx = dx;
  g.dd = dd;
  float *db = nullptr, *dnoise = nullptr;
  if (s.noise_batch) {
    g.db = db = memory.output<float>(size_t(s.channels));
    g.dnoise = dnoise = memory.output<float>(size_t(s.batch * s.pixels));
  }
  grad_blocks_cuda(g);
  const size_t channel_parts = size_t(s.batch * g.pixel_blocks * 2 * s.channels);
  const size_t pixel_parts = s.noise_batch ? size_t(s.batch * g.channel_blocks * s.pixels) : 0;
  g.channel_parts = memory.output<float>(channel_parts);
  g.pixel_parts = memory.output<float>(pixel_parts);
  // Written number by number, a sector each, and read again.
  memory.allow((channel_parts * 9 + pixel_parts) * sizeof(float));
  modulated_bias_act_grad_cuda(g, nullptr);
  if (!check) return;

  std::vector<double> expected_dx(size_t(s.count())), expected_dd(size_t(s.batch * s.channels));
  std::vector<double> expected_db(size_t(s.channels)), expected_dnoise(size_t(s.batch * s.pixels));
  operands.for_each([&](int64_t n, int64_t c, int64_t i) {
    const double dz = operands.dz(n, c, i);
    const size_t at = size_t(s.at(n, c, i)), row = size_t(n * s.channels + c);
    expected_dx[at] = dz * operands.d[row];
    expected_dd[row] += dz * double(load(operands.x[at]));
    expected_db[size_t(c)] += dz;
    expected_dnoise[size_t(n * s.pixels + i)] += dz;
  });
  memory.expect(dx, expected_dx, tolerance);
  memory.expect(dd, expected_dd, 1e-4);
  if (db) memory.expect(db, expected_db, 1e-4);
  if (dnoise) memory.expect(dnoise, expected_dnoise, 1e-4);
}

void run_energy(Memory& memory, int64_t outer, int64_t taps, int64_t inner, int64_t max_blocks, bool check) {
  const std::vector<float> w = numbers(size_t(outer * taps * inner), 1);
  float* e = memory.output<float>(size_t(outer * inner));
  KernelEnergyParams p{memory.input(w), e, outer, taps, inner, Dtype::f32};
  if (max_blocks) p.max_blocks = max_blocks;
  kernel_energy_cuda(p, nullptr);
  if (!check) return;
  std::vector<double> expected(size_t(outer * inner));
  for (size_t i = 0; i < w.size(); ++i) {
    const int64_t o = int64_t(i) / (taps * inner), j = int64_t(i) % inner;
    expected[size_t(o * inner + j)] += double(w[i]) * w[i];
  }
  memory.expect(e, expected, 1e-5);
}

// Both kernels on one shape.
template <class T>
void add(std::vector<Case>& cases, const std::string& name, Dtype dtype, const Sizes& s, bool check, double tolerance) {
  cases.push_back({"modulated_bias_act " + name, [=](Memory& m) { run_forward<T>(m, dtype, s, check, tolerance); }});
  cases.push_back(
      {"modulated_bias_act_grad " + name, [=](Memory& m) { run_gradient<T>(m, dtype, s, check, tolerance); }});
}

}  // namespace

void add_modulated_conv2d_cases(std::vector<Case>& cases, Scale scale) {
  constexpr Activation linear = Activation::linear, lrelu = Activation::lrelu;
  if (scale == Scale::large) {
    add<float>(cases, "contiguous f32", Dtype::f32, {4, 256, 4096, false, 4, lrelu, 0}, false, 0);
    add<float>(cases, "channels_last f32", Dtype::f32, {4, 256, 4096, true, 4, lrelu, 0}, false, 0);
    add<Half>(cases, "contiguous f16", Dtype::f16, {8, 256, 4096, false, 8, lrelu, 0}, false, 0);
    add<Half>(cases, "channels_last f16", Dtype::f16, {8, 256, 4096, true, 8, lrelu, 0}, false, 0);
    cases.push_back({"kernel_energy contiguous f32", [](Memory& m) { run_energy(m, 768 * 640, 9, 1, 0, false); }});
    cases.push_back({"kernel_energy channels_last f32", [](Memory& m) { run_energy(m, 768, 9, 640, 0, false); }});
    return;
  }
  // More rows than a tile has, several column tiles, and fewer blocks than tiles.
  add<float>(cases, "contiguous f32", Dtype::f32, {2, 67, 140, false, 2, lrelu, 2}, true, 1e-5);
  add<float>(cases, "contiguous f32 odd", Dtype::f32, {1, 5, 39, false, 1, lrelu, 1}, true, 1e-5);
  add<float>(cases, "channels_last f32", Dtype::f32, {2, 132, 70, true, 2, lrelu, 2}, true, 1e-5);
  add<float>(cases, "channels_last f32 odd", Dtype::f32, {1, 35, 9, true, 1, linear, 1}, true, 1e-5);
  add<float>(cases, "without noise", Dtype::f32, {2, 3, 16, false, 0, linear, 0}, true, 1e-5);
  add<Half>(cases, "contiguous f16", Dtype::f16, {1, 3, 24, false, 1, lrelu, 0}, true, 4e-3);
  cases.push_back({"kernel_energy contiguous", [](Memory& m) { run_energy(m, 600, 9, 1, 1, true); }});
  cases.push_back({"kernel_energy channels_last", [](Memory& m) { run_energy(m, 3, 4, 100, 1, true); }});
  cases.push_back({"kernel_energy of large kernels", [](Memory& m) { run_energy(m, 3, 5000, 1, 1, true); }});
}

}  // namespace pygan::test

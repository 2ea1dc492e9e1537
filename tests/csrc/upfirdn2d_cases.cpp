#include "upfirdn2d/upfirdn2d.h"

#include "cases.h"

namespace pygan::test {
namespace {

struct Layout {
  int64_t batch, channels;
  bool channels_last;
};

struct Filter {
  int64_t rows, columns;
  bool separable = false;
  bool flip = false;
};

template <class T>
struct Element;
template <>
struct Element<float> {
  static constexpr Dtype dtype = Dtype::f32;
  static constexpr double tolerance = 1e-5;
};
template <>
struct Element<double> {
  static constexpr Dtype dtype = Dtype::f64;
  static constexpr double tolerance = 1e-6;  // of numbers that are made as float
};
template <>
struct Element<Half> {
  static constexpr Dtype dtype = Dtype::f16;
  static constexpr double tolerance = 0x1p-10;
};

UpfirdnAxis axis(int64_t in, int64_t up, int64_t down, int64_t before, int64_t after, int64_t taps) {
  return {in, (in * up + before + after - taps) / down + 1, up, down, before, taps};
}

int64_t index_of(const Upfirdn2dParams& p, int64_t n, int64_t c, int64_t y, int64_t x, bool output) {
  const int64_t height = output ? p.along.out : p.along.in, width = output ? p.across.out : p.across.in;
  if (p.channels_last) return ((n * height + y) * width + x) * p.channels + c;
  return ((n * p.channels + c) * height + y) * width + x;
}

// The definition, tap by tap.
template <class T>
std::vector<double> expected(const Upfirdn2dParams& p, const Filter& filter, const std::vector<float>& f,
                             const std::vector<T>& x, double gain) {
  std::vector<double> y(size_t(p.batch * p.channels * p.along.out * p.across.out));
  const auto tap = [&](int64_t row, int64_t column) {
    if (!filter.flip) row = filter.rows - 1 - row, column = filter.columns - 1 - column;
    return filter.separable ? double(f[size_t(row)]) * f[size_t(column)] : f[size_t(row * filter.columns + column)];
  };
  for (int64_t n = 0; n < p.batch; ++n) {
    for (int64_t c = 0; c < p.channels; ++c) {
      for (int64_t oy = 0; oy < p.along.out; ++oy) {
        for (int64_t ox = 0; ox < p.across.out; ++ox) {
          double sum = 0;
          for (int64_t row = 0; row < filter.rows; ++row) {
            for (int64_t column = 0; column < filter.columns; ++column) {
              const int64_t uy = oy * p.along.down + row - p.along.pad, ux = ox * p.across.down + column - p.across.pad;
              if (uy < 0 || ux < 0 || uy % p.along.up != 0 || ux % p.across.up != 0) continue;
              if (uy / p.along.up >= p.along.in || ux / p.across.up >= p.across.in) continue;
              sum += tap(row, column) *
                     double(load(x[size_t(index_of(p, n, c, uy / p.along.up, ux / p.across.up, false))]));
            }
          }
          y[size_t(index_of(p, n, c, oy, ox, true))] = sum * gain;
        }
      }
    }
  }
  return y;
}

// max_blocks 0: as many as the kernel wants.
template <class T>
void run(Memory& memory, Layout layout, UpfirdnAxis across, UpfirdnAxis along, Filter filter, int64_t max_blocks) {
  constexpr double gain = 1.5;
  const auto values = numbers(size_t(layout.batch * layout.channels * along.in * across.in), 1);
  std::vector<T> x(values.size());
  for (size_t i = 0; i < x.size(); ++i) store(x[i], values[i]);
  auto f = numbers(size_t(filter.separable ? filter.columns : filter.rows * filter.columns), 2);
  for (float& tap : f) tap *= 0.25f;
  T* const y = memory.output<T>(size_t(layout.batch * layout.channels * along.out * across.out));
  Upfirdn2dParams p{memory.input(x), y,     layout.batch,         layout.channels,
                    across,          along, layout.channels_last, Element<T>::dtype};
  if (max_blocks > 0) p.max_blocks = max_blocks;
  upfirdn2d_cuda(p, DeviceFilter{memory.input(f), filter.separable, filter.flip, gain}, nullptr);
  memory.expect(y, expected(p, filter, f, x, gain), Element<T>::tolerance);
}

// Without a comparison. `halo`: how much more input its tiles read than they lie over.
template <class T>
void run_large(Memory& memory, Layout layout, UpfirdnAxis across, UpfirdnAxis along, Filter filter, double halo) {
  const std::vector<T> x(size_t(layout.batch * layout.channels * along.in * across.in));
  const auto f = numbers(size_t(filter.separable ? filter.columns : filter.rows * filter.columns), 2);
  T* const y = memory.output<T>(size_t(layout.batch * layout.channels * along.out * across.out));
  const Upfirdn2dParams p{memory.input(x), y,     layout.batch,         layout.channels,
                          across,          along, layout.channels_last, Element<T>::dtype};
  upfirdn2d_cuda(p, DeviceFilter{memory.input(f), filter.separable, false, 1}, nullptr);
  memory.allow(size_t(halo * double(x.size() * sizeof(T))));
}

constexpr Layout planes(int64_t batch, int64_t channels) { return {batch, channels, false}; }
constexpr Layout pixels(int64_t batch, int64_t channels) { return {batch, channels, true}; }

void add_small(std::vector<Case>& cases) {
  const auto add = [&](std::string name, auto run) { cases.push_back({"upfirdn2d " + name, run}); };
  constexpr Filter four{4, 4}, correlation{4, 4, false, true}, separable{4, 4, true};
  // 4 x 4 taps: widths that can and cannot be read by vectors, several tiles a block, borders inside and outside.
  add("blur planes f32", [=](Memory& m) {
    run<float>(m, planes(1, 2), axis(68, 1, 1, 1, 2, 4), axis(35, 1, 1, 2, 1, 4), four, 2);
  });
  add("blur planes f32 odd width", [=](Memory& m) {
    run<float>(m, planes(2, 1), axis(67, 1, 1, 3, 3, 4), axis(9, 1, 1, -1, -2, 4), correlation, 1);
  });
  add("blur channels_last f32", [=](Memory& m) {
    run<float>(m, pixels(1, 36), axis(18, 1, 1, 1, 1, 4), axis(10, 1, 1, 2, 2, 4), separable, 3);
  });
  add("blur channels_last f16 odd channels", [=](Memory& m) {
    run<Half>(m, pixels(2, 5), axis(6, 1, 1, 1, 1, 4), axis(9, 1, 1, 1, 1, 4), four, 1);
  });
  add("up 2 planes f32", [=](Memory& m) {
    run<float>(m, planes(1, 2), axis(36, 2, 1, 2, 1, 4), axis(19, 2, 1, 2, 1, 4), four, 3);
  });
  add("up 2 planes f16 odd padding", [=](Memory& m) {
    run<Half>(m, planes(2, 1), axis(33, 2, 1, 1, 3, 4), axis(5, 2, 1, 3, 1, 4), separable, 1);
  });
  add("up 2 channels_last f32", [=](Memory& m) {
    run<float>(m, pixels(1, 33), axis(9, 2, 1, 2, 1, 4), axis(5, 2, 1, 1, 2, 4), four, 2);
  });
  add("down 2 planes f32", [=](Memory& m) {
    run<float>(m, planes(2, 1), axis(132, 1, 2, 1, 1, 4), axis(8, 1, 2, 1, 1, 4), correlation, 2);
  });
  add("down 2 planes f32 odd width", [=](Memory& m) {
    run<float>(m, planes(1, 1), axis(131, 1, 2, 2, 1, 4), axis(69, 1, 2, 0, 0, 4), separable, 1);
  });
  add("down 2 channels_last f32", [=](Memory& m) {
    run<float>(m, pixels(1, 32), axis(18, 1, 2, 1, 1, 4), axis(9, 1, 2, 1, 2, 4), four, 2);
  });
  // Other filters and factors.
  add("general planes f32", [=](Memory& m) {
    run<float>(m, planes(1, 2), axis(30, 3, 1, 2, 4, 5), axis(11, 1, 2, -1, 3, 3), Filter{3, 5}, 1);
  });
  add("general planes f64 separable", [=](Memory& m) {
    run<double>(m, planes(3, 1), axis(9, 2, 3, 6, 5, 12), axis(17, 2, 1, 6, 5, 12), Filter{12, 12, true, true}, 2);
  });
  add("general channels_last f32 separable", [=](Memory& m) {
    run<float>(m, pixels(1, 35), axis(9, 2, 1, 3, 3, 6), axis(4, 1, 1, 3, 2, 6), Filter{6, 6, true}, 1);
  });
  add("general channels_last f16", [=](Memory& m) {
    run<Half>(m, pixels(2, 3), axis(5, 1, 1, 1, 1, 3), axis(4, 1, 1, 0, 1, 2), Filter{2, 3, false, true}, 1);
  });
  add("general planes f32 large filter", [=](Memory& m) {
    run<float>(m, planes(1, 1), axis(6, 1, 1, 70, 70, 66), axis(5, 1, 1, 40, 40, 66), Filter{66, 66}, 3);
  });
}

void add_large(std::vector<Case>& cases) {
  const auto add = [&](std::string name, auto run) { cases.push_back({"upfirdn2d " + name, run}); };
  constexpr Filter four{4, 4}, twelve{12, 12, true};
  // Where the larger of input and output has 16 MB. The fractions are samples that a tile reads by those under it.
  const auto same = [](int64_t size) { return axis(size, 1, 1, 1, 2, 4); };
  const auto up = [](int64_t size) { return axis(size, 2, 1, 2, 1, 4); };
  const auto down = [](int64_t size) { return axis(size, 1, 2, 1, 1, 4); };
  add("blur planes f32", [=](Memory& m) {
    run_large<float>(m, planes(4, 64), same(128), same(128), four, 67. * 35 / (64 * 32) - 1);
  });
  add("blur planes f16", [=](Memory& m) {
    run_large<Half>(m, planes(8, 64), same(128), same(128), four, 67. * 35 / (64 * 32) - 1);
  });
  add("blur channels_last f32", [=](Memory& m) {
    run_large<float>(m, pixels(4, 64), same(128), same(128), four, 19. * 11 / (16 * 8) - 1);
  });
  add("up 2 planes f32", [=](Memory& m) {
    run_large<float>(m, planes(4, 64), up(64), up(64), four, 34. * 18 / (32 * 16) - 1);
  });
  add("up 2 channels_last f32", [=](Memory& m) {
    run_large<float>(m, pixels(4, 64), up(64), up(64), four, 10. * 10 / (8 * 8) - 1);
  });
  add("down 2 planes f32", [=](Memory& m) {
    run_large<float>(m, planes(4, 64), down(128), down(128), four, 130. * 66 / (128 * 64) - 1);
  });
  add("down 2 channels_last f32", [=](Memory& m) {
    run_large<float>(m, pixels(4, 64), down(128), down(128), four, 18. * 10 / (16 * 8) - 1);
  });
  const auto filtered = [](int64_t size) { return axis(size, 1, 1, 6, 5, 12); };
  add("general planes f32", [=](Memory& m) {
    run_large<float>(m, planes(4, 64), filtered(128), filtered(128), twelve, 75. * 43 / (64 * 32) - 1);
  });
  add("general channels_last f32", [=](Memory& m) {
    run_large<float>(m, pixels(4, 64), filtered(128), filtered(128), twelve, 27. * 27 / (16 * 16) - 1);
  });
}

}  // namespace

void add_upfirdn2d_cases(std::vector<Case>& cases, Scale scale) {
  scale == Scale::small ? add_small(cases) : add_large(cases);
}

}  // namespace pygan::test

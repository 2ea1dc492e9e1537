// CPU loops of the modulated convolution. Compiled once per instruction set, which PYGAN_ISA names.
//
// The work is cut into tiles that stay in the first-level cache. Each step of a tile is a plain loop: read (from either
// layout, into the order of x), scale and add, activate, sum, write. So the steps vectorize one by one, the activations
// are compiled once per type, and only the first and the last step touch memory.
#include "modulated_conv2d/modulated_conv2d.h"

namespace pygan {
namespace {

constexpr int64_t tile_size = 1024;
constexpr int64_t tile_side = 32;  // of tiles that are transposed on the way: whole cache lines along both dimensions

constexpr int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

// A part of a sample, in the order of x: rows are channels, or with channels last pixels.
struct Tile {
  int64_t first_row, rows;
  int64_t first_column, columns;
};

// Elements [row, column] of a tile in a tensor; one of the strides is 1.
template <class T>
struct View {
  T* data;
  int64_t row_stride, column_stride;
};

template <class T>
PYGAN_HD View<T> view(T* sample, const Tile& t, int64_t row_stride, int64_t column_stride) {
  return {sample + t.first_row * row_stride + t.first_column * column_stride, row_stride, column_stride};
}

// Copies a tile, dense and by rows, to `to`. With T == A it is cheap beside fetching the elements.
template <class T, class A>
PYGAN_HD void read(const View<const T>& from, const Tile& t, A* __restrict to) {
  if (from.column_stride == 1) {
    for (int64_t r = 0; r < t.rows; ++r) {
      const T* __restrict row = from.data + r * from.row_stride;
      for (int64_t c = 0; c < t.columns; ++c) to[r * t.columns + c] = load(row[c]);
    }
  } else {
    for (int64_t c = 0; c < t.columns; ++c) {
      const T* __restrict column = from.data + c * from.column_stride;
      for (int64_t r = 0; r < t.rows; ++r) to[r * t.columns + c] = load(column[r]);
    }
  }
}

template <class T, class A>
PYGAN_HD void write(const View<T>& to, const Tile& t, const A* __restrict from) {
  if (to.column_stride == 1) {
    for (int64_t r = 0; r < t.rows; ++r) {
      T* __restrict row = to.data + r * to.row_stride;
      for (int64_t c = 0; c < t.columns; ++c) store(row[c], from[r * t.columns + c]);
    }
  } else {
    for (int64_t c = 0; c < t.columns; ++c) {
      T* __restrict column = to.data + c * to.column_stride;
      for (int64_t r = 0; r < t.rows; ++r) store(column[r], from[r * t.columns + c]);
    }
  }
}

// Sixteen partial sums (eight of doubles), whatever the width of the registers: the same bits with all of them.
template <class A>
struct Lanes {
  static constexpr int64_t count = 64 / int64_t(sizeof(A));
  A lane[count] = {};

  PYGAN_HD A sum() {
    for (int64_t half = count / 2; half > 0; half /= 2) {
      for (int64_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
  }
};

template <class A>
PYGAN_HD A sum(const A* __restrict v, int64_t n) {
  Lanes<A> s;
  int64_t i = 0;
  for (; i + s.count <= n; i += s.count) {
    for (int64_t j = 0; j < s.count; ++j) s.lane[j] += v[i + j];
  }
  for (int64_t j = 0; i + j < n; ++j) s.lane[j] += v[i + j];
  return s.sum();
}

template <class A>
PYGAN_HD A dot(const A* __restrict v, const A* __restrict w, int64_t n) {
  Lanes<A> s;
  int64_t i = 0;
  for (; i + s.count <= n; i += s.count) {
    for (int64_t j = 0; j < s.count; ++j) s.lane[j] += v[i + j] * w[i + j];
  }
  for (int64_t j = 0; i + j < n; ++j) s.lane[j] += v[i + j] * w[i + j];
  return s.sum();
}

template <class A>
PYGAN_HD void add(A* __restrict to, const A* __restrict v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += v[i];
}

template <class A>
PYGAN_HD void add_product(A* __restrict to, const A* __restrict v, const A* __restrict w, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += v[i] * w[i];
}

// v *= d, where d holds one number per row, or with channels last per column.
template <bool channels_last, class A>
PYGAN_HD void scale(A* __restrict v, const A* __restrict d, const Tile& t) {
  for (int64_t r = 0; r < t.rows; ++r, v += t.columns) {
    if constexpr (channels_last) {
      for (int64_t c = 0; c < t.columns; ++c) v[c] *= d[t.first_column + c];
    } else {
      const A factor = d[t.first_row + r];
      for (int64_t c = 0; c < t.columns; ++c) v[c] *= factor;
    }
  }
}

// v += u, where u holds one number per column, or per row.
template <bool per_column, class A>
PYGAN_HD void offset(A* __restrict v, const A* __restrict u, const Tile& t) {
  for (int64_t r = 0; r < t.rows; ++r, v += t.columns) {
    if constexpr (per_column) {
      add(v, u + t.first_column, t.columns);
    } else {
      const A term = u[t.first_row + r];
      for (int64_t c = 0; c < t.columns; ++c) v[c] += term;
    }
  }
}

// Calls fn with each tile of a unit of work, and with the sample it belongs to.
template <bool channels_last, class F>
PYGAN_HD void for_each_tile(const ModulatedBiasActParams& p, int64_t unit, F&& fn) {
  const int64_t units = pixel_blocks_cpu(p.pixels);
  const int64_t sample = unit / units;
  const int64_t first_pixel = unit % units * pixels_per_unit, last_pixel = min(first_pixel + pixels_per_unit, p.pixels);
  const bool transposed = p.x_channels_last != p.y_channels_last;
  const int64_t side = transposed ? tile_side : tile_size;
  const int64_t max_columns = min(side, channels_last ? p.channels : last_pixel - first_pixel);
  const int64_t max_rows = min(side, tile_size / max_columns);
  const auto cut = [&](int64_t first_row, int64_t end_row, int64_t first_column,
                       int64_t end_column) __attribute__((always_inline)) {
    for (int64_t r = first_row; r < end_row; r += max_rows) {
      for (int64_t c = first_column; c < end_column; c += max_columns) {
        fn(sample, Tile{r, min(max_rows, end_row - r), c, min(max_columns, end_column - c)});
      }
    }
  };
  if constexpr (channels_last) {
    cut(first_pixel, last_pixel, 0, p.channels);
  } else {
    cut(0, p.channels, first_pixel, last_pixel);
  }
}

// The elements of a tile of one sample of x, dx, or (other_layout) of y and dy where that differs.
template <bool channels_last, class T>
PYGAN_HD View<T> view_of(T* data, const ModulatedBiasActParams& p, int64_t sample, const Tile& t, bool other_layout) {
  T* start = data + sample * p.channels * p.pixels;
  const int64_t columns = channels_last ? p.channels : p.pixels, rows = channels_last ? p.pixels : p.channels;
  return other_layout ? view(start, t, 1, rows) : view(start, t, columns, 1);
}

// z of a tile, given x.
template <bool channels_last, class A>
PYGAN_HD void scale_and_add(const ModulatedBiasActParams& p, int64_t sample, const Tile& t, A* z) {
  const A *d = static_cast<const A*>(p.d), *noise = static_cast<const A*>(p.noise), *b = static_cast<const A*>(p.b);
  if (d) scale<channels_last>(z, d + sample * p.channels, t);
  if (noise) offset<!channels_last>(z, noise + sample * p.noise_stride, t);
  if (b) offset<channels_last>(z, b, t);
}

template <class T, bool channels_last>
void forward(const ModulatedBiasActParams& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  alignas(64) A z[tile_size];
  const A alpha = A(p.alpha), gain = A(p.gain), clamp = A(p.clamp);
  for (int64_t unit = begin; unit < end; ++unit) {
    for_each_tile<channels_last>(p, unit, [&](int64_t sample, const Tile& t) __attribute__((always_inline)) {
      read(view_of<channels_last>(static_cast<const T*>(p.x), p, sample, t, false), t, z);
      scale_and_add<channels_last>(p, sample, t, z);
      if (!is_linear(p)) {
        with_activation(p.act, [&](auto act) __attribute__((always_inline)) {
          for (int64_t i = 0; i < t.rows * t.columns; ++i) {
            z[i] = activated<decltype(act)::value>(z[i], alpha, gain, clamp);
          }
        });
      }
      write(view_of<channels_last>(static_cast<T*>(p.y), p, sample, t, p.y_channels_last != channels_last), t, z);
    });
  }
}

// The sums over a tile, added to those of its unit.
template <bool channels_last, class A>
PYGAN_HD void add_sums(const ModulatedBiasActGradParams& p, int64_t unit, int64_t sample, const Tile& t, const A* dz,
                       const A* x) {
  A* dd = p.dd ? static_cast<A*>(p.channel_parts) + unit * 2 * p.forward.channels : nullptr;
  A* db = p.db ? static_cast<A*>(p.channel_parts) + (unit * 2 + 1) * p.forward.channels : nullptr;
  A* dnoise = p.dnoise ? static_cast<A*>(p.dnoise) + sample * p.forward.pixels : nullptr;
  for (int64_t r = 0; r < t.rows; ++r, dz += t.columns, x += t.columns) {
    if constexpr (channels_last) {
      if (dd) add_product(dd + t.first_column, dz, x, t.columns);
      if (db) add(db + t.first_column, dz, t.columns);
      if (dnoise) dnoise[t.first_row + r] += sum(dz, t.columns);
    } else {
      if (dd) dd[t.first_row + r] += dot(dz, x, t.columns);
      if (db) db[t.first_row + r] += sum(dz, t.columns);
      if (dnoise) add(dnoise + t.first_column, dz, t.columns);
    }
  }
}

template <class T, bool channels_last>
void gradient(const ModulatedBiasActGradParams& g, int64_t begin, int64_t end) {
  using A = Acc<T>;
  alignas(64) A x[tile_size], z[tile_size], dz[tile_size];
  const ModulatedBiasActParams& p = g.forward;
  const A alpha = A(p.alpha), gain = A(p.gain), clamp = A(p.clamp);
  const bool reads_x = !is_linear(p) || g.dd;
  for (int64_t unit = begin; unit < end; ++unit) {
    A* parts = static_cast<A*>(g.channel_parts) + unit * 2 * p.channels;
    for (int64_t i = 0; i < 2 * p.channels; ++i) parts[i] = 0;
    if (g.dnoise) {
      const int64_t units = pixel_blocks_cpu(p.pixels), first = unit % units * pixels_per_unit;
      A* dnoise = static_cast<A*>(g.dnoise) + unit / units * p.pixels;
      for (int64_t i = first; i < min(first + pixels_per_unit, p.pixels); ++i) dnoise[i] = 0;
    }
    for_each_tile<channels_last>(p, unit, [&](int64_t sample, const Tile& t) __attribute__((always_inline)) {
      const int64_t size = t.rows * t.columns;
      if (reads_x) read(view_of<channels_last>(static_cast<const T*>(p.x), p, sample, t, false), t, x);
      const bool other_layout = p.y_channels_last != channels_last;
      read(view_of<channels_last>(static_cast<const T*>(g.dy), p, sample, t, other_layout), t, dz);
      if (!is_linear(p)) {
        for (int64_t i = 0; i < size; ++i) z[i] = x[i];
        scale_and_add<channels_last>(p, sample, t, z);
        with_activation(p.act, [&](auto act) __attribute__((always_inline)) {
          for (int64_t i = 0; i < size; ++i) {
            dz[i] = activated_grad<decltype(act)::value>(dz[i], z[i], alpha, gain, clamp);
          }
        });
      }
      add_sums<channels_last>(g, unit, sample, t, dz, x);
      if (p.d) scale<channels_last>(dz, static_cast<const A*>(p.d) + sample * p.channels, t);
      write(view_of<channels_last>(static_cast<T*>(g.dx), p, sample, t, false), t, dz);
    });
  }
}

template <class A>
void finish_sums(const ModulatedBiasActGradParams& g, int64_t begin, int64_t end) {
  const int64_t channels = g.forward.channels;
  const A* parts = static_cast<const A*>(g.channel_parts);
  A *dd = static_cast<A*>(g.dd), *db = static_cast<A*>(g.db);
  for (int64_t sample = 0; sample < g.forward.batch; ++sample) {
    for (int64_t block = 0; block < g.pixel_blocks; ++block, parts += 2 * channels) {
      for (int64_t c = begin; c < end; ++c) {
        if (dd) dd[sample * channels + c] = parts[c] + (block ? dd[sample * channels + c] : 0);
        if (db) db[c] = parts[channels + c] + (sample || block ? db[c] : 0);
      }
    }
  }
}

template <class T>
void energy(const KernelEnergyParams& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const T* __restrict w = static_cast<const T*>(p.w);
  A* __restrict e = static_cast<A*>(p.e);
  const auto square = [](const T& value) __attribute__((always_inline)) { return load(value) * load(value); };
  if (p.inner == 1) {
    for (int64_t i = begin; i < end; ++i) {
      A total = 0;
      for (int64_t tap = 0; tap < p.taps; ++tap) total += square(w[i * p.taps + tap]);
      e[i] = total;
    }
    return;
  }
  for (int64_t i = begin; i < end;) {
    const int64_t outer = i / p.inner, first = i % p.inner, count = min(end - i, p.inner - first);
    const T* __restrict taps = w + outer * p.taps * p.inner + first;
    for (int64_t j = 0; j < count; ++j) e[i + j] = 0;
    for (int64_t tap = 0; tap < p.taps; ++tap) {
      for (int64_t j = 0; j < count; ++j) e[i + j] += square(taps[tap * p.inner + j]);
    }
    i += count;
  }
}

}  // namespace

template <>
void modulated_bias_act_cpu<Isa::PYGAN_ISA>(const ModulatedBiasActParams& p, int64_t begin, int64_t end) {
  dispatch(p.dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    p.x_channels_last ? forward<T, true>(p, begin, end) : forward<T, false>(p, begin, end);
  });
}

template <>
void modulated_bias_act_grad_cpu<Isa::PYGAN_ISA>(const ModulatedBiasActGradParams& p, int64_t begin, int64_t end) {
  dispatch(p.forward.dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    p.forward.x_channels_last ? gradient<T, true>(p, begin, end) : gradient<T, false>(p, begin, end);
  });
}

template <>
void modulated_bias_act_sums_cpu<Isa::PYGAN_ISA>(const ModulatedBiasActGradParams& p, int64_t begin, int64_t end) {
  p.forward.dtype == Dtype::f64 ? finish_sums<double>(p, begin, end) : finish_sums<float>(p, begin, end);
}

template <>
void kernel_energy_cpu<Isa::PYGAN_ISA>(const KernelEnergyParams& p, int64_t begin, int64_t end) {
  dispatch(p.dtype, [&](auto* element) { energy<std::remove_pointer_t<decltype(element)>>(p, begin, end); });
}

}  // namespace pygan

// CUDA kernels of the modulated convolution.
//
// A sample is a matrix whose rows are contiguous in memory: channels by pixels or, channels last, pixels by channels.
// A block takes a tile of it. Threads along x take a vector of columns each, threads along y take every
// blockDim.y-th row; both counts are powers of two, so that the threads of a row are one group of lanes of a warp.
#include <initializer_list>
#include <type_traits>

#include "common/cuda.cuh"
#include "modulated_conv2d/modulated_conv2d.h"

namespace pygan {
namespace {

constexpr int threads = 256;
constexpr int64_t rows_per_tile = 64;
constexpr int finish_columns = 32, finish_rows = 32;  // of the block that adds up parts

// How the tiles lie on the samples.
struct Tiling {
  int64_t rows, columns;  // of a sample
  int64_t tile_columns;
  int64_t row_tiles, column_tiles;
  int64_t count;
  int lanes;  // threads along x
};

template <class T, int n>
Tiling tiling(const ModulatedBiasActParams& p) {
  Tiling t{};
  t.rows = p.x_channels_last ? p.pixels : p.channels;
  t.columns = p.x_channels_last ? p.channels : p.pixels;
  t.lanes = 1;
  while (t.lanes < 32 && t.lanes * n < t.columns) t.lanes *= 2;
  t.tile_columns = t.lanes * n;
  t.row_tiles = ceil_div(t.rows, rows_per_tile);
  t.column_tiles = ceil_div(t.columns, t.tile_columns);
  t.count = p.batch * t.row_tiles * t.column_tiles;
  return t;
}

// The place of one tile.
struct Tile {
  int64_t sample, row_tile, column_tile;
  int64_t first_row, end_row;
  int64_t column;  // of this thread's vector
};

template <int n>
__device__ __forceinline__ Tile tile(const Tiling& t, int64_t index) {
  Tile place;
  place.column_tile = index % t.column_tiles;
  place.row_tile = index / t.column_tiles % t.row_tiles;
  place.sample = index / t.column_tiles / t.row_tiles;
  place.first_row = place.row_tile * rows_per_tile;
  place.end_row = min(place.first_row + rows_per_tile, t.rows);
  place.column = place.column_tile * t.tile_columns + threadIdx.x * n;
  return place;
}

template <class A, class T, int n>
__device__ __forceinline__ void read(const void* from, int64_t offset, A (&to)[n]) {
  const auto v = *reinterpret_cast<const Vector<T, n>*>(static_cast<const T*>(from) + offset);
  for (int i = 0; i < n; ++i) to[i] = load(v.element[i]);
}

template <class T, class A, int n>
__device__ __forceinline__ void write(void* to, int64_t offset, const A (&from)[n]) {
  Vector<T, n> v;
  for (int i = 0; i < n; ++i) store(v.element[i], from[i]);
  *reinterpret_cast<Vector<T, n>*>(static_cast<T*>(to) + offset) = v;
}

// n numbers of an operand, `otherwise` where it is null.
template <class A, int n>
__device__ __forceinline__ void read_operand(const void* from, int64_t offset, A otherwise, A (&to)[n]) {
  constexpr int width = n < vector_size<A> ? n : vector_size<A>;
  for (int i = 0; i < n; i += width) {
    Vector<A, width> v;
    if (from) v = *reinterpret_cast<const Vector<A, width>*>(static_cast<const A*>(from) + offset + i);
    for (int j = 0; j < width; ++j) to[i + j] = from ? v.element[j] : otherwise;
  }
}

// d and noise + b of a row's vector. One of the two runs along the columns, and so does not change with the row.
template <class A, bool channels_last, int n>
struct Operands {
  A d[n], noise[n], b[n];

  __device__ __forceinline__ void fetch_columns(const ModulatedBiasActParams& p, int64_t sample, int64_t column) {
    if constexpr (channels_last) {
      read_operand(p.d, sample * p.channels + column, A(1), d);
      read_operand(p.b, column, A(0), b);
    } else {
      read_operand(p.noise, sample * p.noise_stride + column, A(0), noise);
    }
  }

  __device__ __forceinline__ void fetch_row(const ModulatedBiasActParams& p, int64_t sample, int64_t row) {
    if constexpr (channels_last) {
      fill(noise, p.noise ? static_cast<const A*>(p.noise)[sample * p.noise_stride + row] : A(0));
    } else {
      fill(d, p.d ? static_cast<const A*>(p.d)[sample * p.channels + row] : A(1));
      fill(b, p.b ? static_cast<const A*>(p.b)[row] : A(0));
    }
  }

  static __device__ __forceinline__ void fill(A (&to)[n], A value) {
    for (int i = 0; i < n; ++i) to[i] = value;
  }

  __device__ __forceinline__ A z(A x, int i) const { return x * d[i] + noise[i] + b[i]; }
};

template <class T, bool channels_last, int n>
__global__ void __launch_bounds__(threads, 4) forward_kernel(ModulatedBiasActParams p, Tiling tiles) {
  using A = Acc<T>;
  const A alpha = A(p.alpha), gain = A(p.gain), clamp = A(p.clamp);
  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile t = tile<n>(tiles, index);
    if (t.column >= tiles.columns) continue;
    Operands<A, channels_last, n> operands;
    operands.fetch_columns(p, t.sample, t.column);
    for (int64_t row = t.first_row + threadIdx.y; row < t.end_row; row += blockDim.y) {
      const int64_t offset = (t.sample * tiles.rows + row) * tiles.columns + t.column;
      A y[n];
      read<A, T>(p.x, offset, y);
      operands.fetch_row(p, t.sample, row);
      for (int i = 0; i < n; ++i) y[i] = operands.z(y[i], i);
      with_activation(p.act, [&](auto act) {
        for (int i = 0; i < n; ++i) y[i] = activated<decltype(act)::value>(y[i], alpha, gain, clamp);
      });
      write<T>(p.y, offset, y);
    }
  }
}

// Sum over the lanes of a row; the same in all of them.
template <class A>
__device__ __forceinline__ A sum_of_row(A v) {
  for (unsigned distance = blockDim.x / 2; distance > 0; distance /= 2) v += __shfl_xor_sync(0xffffffffu, v, distance);
  return v;
}

// Adds up what the threads of a column have; the result is in those of the first row. All threads of the block call it.
template <class A, int n>
__device__ __forceinline__ void sum_columns(A (*shared)[threads], A (&v)[n]) {
  const unsigned column = threadIdx.x, mine = threadIdx.y * blockDim.x + column;
  for (int i = 0; i < n; ++i) shared[i][mine] = v[i];
  __syncthreads();
  if (threadIdx.y == 0) {
    for (unsigned other = column + blockDim.x; other < threads; other += blockDim.x) {
      for (int i = 0; i < n; ++i) v[i] += shared[i][other];
    }
  }
  __syncthreads();  // the buffer is used again
}

template <class T, bool channels_last, int n>
__global__ void __launch_bounds__(threads, 4) gradient_kernel(ModulatedBiasActGradParams g, Tiling tiles) {
  using A = Acc<T>;
  __shared__ A buffer[n][threads];
  const ModulatedBiasActParams& p = g.forward;
  const A alpha = A(p.alpha), gain = A(p.gain), clamp = A(p.clamp);
  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile t = tile<n>(tiles, index);
    const bool inside = t.column < tiles.columns;
    // Parts of this tile: of dz * x and dz for channels, of dz for pixels.
    A* channel_part = static_cast<A*>(g.channel_parts) +
                      (t.sample * g.pixel_blocks + (channels_last ? t.row_tile : t.column_tile)) * 2 * p.channels;
    A* pixel_part = static_cast<A*>(g.pixel_parts) +
                    (t.sample * g.channel_blocks + (channels_last ? t.column_tile : t.row_tile)) * p.pixels;
    Operands<A, channels_last, n> operands;
    if (inside) operands.fetch_columns(p, t.sample, t.column);
    A column_dz[n] = {}, column_product[n] = {};
    // All lanes of a warp make the same number of rounds, because all of them take part in the sums.
    for (int64_t first = t.first_row; first < t.end_row; first += blockDim.y) {
      const int64_t row = first + threadIdx.y;
      A row_dz = 0, row_product = 0;
      if (inside && row < t.end_row) {
        const int64_t offset = (t.sample * tiles.rows + row) * tiles.columns + t.column;
        A x[n], dz[n];
        read<A, T>(p.x, offset, x);
        read<A, T>(g.dy, offset, dz);
        operands.fetch_row(p, t.sample, row);
        with_activation(p.act, [&](auto act) {
          for (int i = 0; i < n; ++i) {
            dz[i] = activated_grad<decltype(act)::value>(dz[i], operands.z(x[i], i), alpha, gain, clamp);
          }
        });
        for (int i = 0; i < n; ++i) {
          row_dz += dz[i];
          row_product += dz[i] * x[i];
          column_dz[i] += dz[i];
          column_product[i] += dz[i] * x[i];
          dz[i] *= operands.d[i];
        }
        write<T>(g.dx, offset, dz);
      }
      if (channels_last ? g.dnoise != nullptr : g.dd || g.db) {
        row_dz = sum_of_row(row_dz);
        if constexpr (!channels_last) row_product = sum_of_row(row_product);
        if (threadIdx.x == 0 && row < t.end_row) {
          if constexpr (channels_last) {
            pixel_part[row] = row_dz;
          } else {
            channel_part[row] = row_product;
            channel_part[p.channels + row] = row_dz;
          }
        }
      }
    }
    if (channels_last ? g.dd || g.db : g.dnoise != nullptr) {
      sum_columns(buffer, column_dz);
      if constexpr (channels_last) sum_columns(buffer, column_product);
      if (inside && threadIdx.y == 0) {
        for (int i = 0; i < n; ++i) {
          if constexpr (channels_last) {
            channel_part[t.column + i] = column_product[i];
            channel_part[p.channels + t.column + i] = column_dz[i];
          } else {
            pixel_part[t.column + i] = column_dz[i];
          }
        }
      }
    }
  }
}

// out[i, j] = sum of the parts [i, k, j] over k.
template <class A>
struct Sum {
  A* out;          // null: not wanted
  const A* parts;  // [outer, count, inner], with `stride` from one k to the next
  int64_t outer, count, inner, stride;

  __host__ __device__ int64_t column_tiles() const { return (inner + finish_columns - 1) / finish_columns; }
  __host__ __device__ int64_t tiles() const { return out ? outer * column_tiles() : 0; }
};

template <class A>
struct Sums {
  Sum<A> of[3];  // dd, db, dnoise
};

template <class A>
__global__ void __launch_bounds__(finish_columns* finish_rows, 2) finish_kernel(Sums<A> sums) {
  __shared__ A buffer[finish_rows][finish_columns];
  const int64_t count = sums.of[0].tiles() + sums.of[1].tiles() + sums.of[2].tiles();
  for (int64_t index = blockIdx.x; index < count; index += gridDim.x) {
    const Sum<A>* s = sums.of;
    int64_t tile = index;
    while (tile >= s->tiles()) tile -= (s++)->tiles();
    const int64_t i = tile / s->column_tiles();
    const int64_t j = tile % s->column_tiles() * finish_columns + threadIdx.x;
    A total = 0;
    if (j < s->inner) {
      for (int64_t k = threadIdx.y; k < s->count; k += finish_rows) {
        total += s->parts[(i * s->count + k) * s->stride + j];
      }
    }
    buffer[threadIdx.y][threadIdx.x] = total;
    for (unsigned half = finish_rows / 2; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.y < half) buffer[threadIdx.y][threadIdx.x] += buffer[threadIdx.y + half][threadIdx.x];
    }
    if (threadIdx.y == 0 && j < s->inner) s->out[i * s->inner + j] = buffer[0][threadIdx.x];
    __syncthreads();  // the buffer is filled again
  }
}

// Each thread adds the squares of one kernel. Where those lie one behind the other the block fetches them together, if
// it has the memory (`staged`).
template <class T>
__global__ void __launch_bounds__(threads, 4) energy_kernel(KernelEnergyParams p, int kernels_per_block, bool staged) {
  using A = Acc<T>;
  PYGAN_DYNAMIC_SHARED(A, buffer);
  const T* w = static_cast<const T*>(p.w);
  const int64_t count = p.outer * p.inner;
  for (int64_t first = int64_t(blockIdx.x) * kernels_per_block; first < count;
       first += int64_t(gridDim.x) * kernels_per_block) {
    const int64_t kernels = min(int64_t(kernels_per_block), count - first);
    if (staged) {
      for (int64_t i = threadIdx.x; i < kernels * p.taps; i += threads) buffer[i] = load(w[first * p.taps + i]);
      __syncthreads();
    }
    for (int64_t kernel = threadIdx.x; kernel < kernels; kernel += threads) {
      const int64_t i = first + kernel;
      const T* taps = w + i / p.inner * p.taps * p.inner + i % p.inner;
      A total = 0;
      for (int64_t tap = 0; tap < p.taps; ++tap) {
        const A value = staged ? buffer[kernel * p.taps + tap] : load(taps[tap * p.inner]);
        total += value * value;
      }
      static_cast<A*>(p.e)[i] = total;
    }
    __syncthreads();  // the buffer is filled again
  }
}

// Calls fn with the widest vector, of n elements at most, that the tensors and the number of columns allow; y: or dy.
template <class T, int n, class F>
void with_vector(const ModulatedBiasActParams& p, const void* y, F&& fn) {
  const int64_t columns = p.x_channels_last ? p.channels : p.pixels;
  if constexpr (!std::is_same_v<T, double>) {  // which is for checking only
    bool aligned = columns % n == 0;
    for (const void* tensor : {p.x, p.d, p.noise, p.b, y}) aligned = aligned && is_aligned(tensor, 16);
    if (aligned) return fn(std::integral_constant<int, n>{});
  }
  fn(std::integral_constant<int, 1>{});
}

// The sums of two-byte elements would take too many registers for 16-byte vectors.
template <class T>
constexpr int gradient_vector_size = vector_size<T> < 4 ? vector_size<T> : 4;

dim3 grid(int64_t blocks, int64_t max_blocks) { return dim3(unsigned(blocks < max_blocks ? blocks : max_blocks)); }

template <class T>
void forward(const ModulatedBiasActParams& p, void* stream) {
  with_vector<T, vector_size<T>>(p, p.y, [&](auto width) {
    constexpr int n = decltype(width)::value;
    const Tiling t = tiling<T, n>(p);
    launch(p.x_channels_last ? forward_kernel<T, true, n> : forward_kernel<T, false, n>, grid(t.count, p.max_blocks),
           dim3(t.lanes, threads / t.lanes), 0, stream, p, t);
  });
}

template <class T>
void set_blocks(ModulatedBiasActGradParams& g) {
  with_vector<T, gradient_vector_size<T>>(g.forward, g.dy, [&](auto width) {
    const Tiling t = tiling<T, decltype(width)::value>(g.forward);
    g.pixel_blocks = g.forward.x_channels_last ? t.row_tiles : t.column_tiles;
    g.channel_blocks = g.forward.x_channels_last ? t.column_tiles : t.row_tiles;
  });
}

template <class A>
void finish(const ModulatedBiasActGradParams& g, void* stream) {
  const ModulatedBiasActParams& p = g.forward;
  const A* channel_parts = static_cast<const A*>(g.channel_parts);
  const Sums<A> sums{{
      {static_cast<A*>(g.dd), channel_parts, p.batch, g.pixel_blocks, p.channels, 2 * p.channels},
      {static_cast<A*>(g.db), channel_parts + p.channels, 1, p.batch * g.pixel_blocks, p.channels, 2 * p.channels},
      {static_cast<A*>(g.dnoise), static_cast<const A*>(g.pixel_parts), p.batch, g.channel_blocks, p.pixels, p.pixels},
  }};
  const int64_t blocks = sums.of[0].tiles() + sums.of[1].tiles() + sums.of[2].tiles();
  if (blocks == 0) return;
  launch(finish_kernel<A>, grid(blocks, p.max_blocks), dim3(finish_columns, finish_rows), 0, stream, sums);
}

template <class T>
void gradient(const ModulatedBiasActGradParams& g, void* stream) {
  with_vector<T, gradient_vector_size<T>>(g.forward, g.dy, [&](auto width) {
    constexpr int n = decltype(width)::value;
    const Tiling t = tiling<T, n>(g.forward);
    launch(g.forward.x_channels_last ? gradient_kernel<T, true, n> : gradient_kernel<T, false, n>,
           grid(t.count, g.forward.max_blocks), dim3(t.lanes, threads / t.lanes), 0, stream, g, t);
  });
  finish<Acc<T>>(g, stream);
}

template <class T>
void energy(const KernelEnergyParams& p, void* stream) {
  constexpr int64_t buffer_size = 4096;  // elements
  const bool staged = p.inner == 1 && p.taps <= buffer_size;
  const int kernels = int(min(int64_t(threads), staged ? buffer_size / p.taps : threads));
  const size_t bytes = staged ? size_t(kernels * p.taps) * sizeof(Acc<T>) : 0;
  launch(energy_kernel<T>, grid(ceil_div(p.outer * p.inner, kernels), p.max_blocks), dim3(threads), bytes, stream, p,
         kernels, staged);
}

}  // namespace

void modulated_bias_act_cuda(const ModulatedBiasActParams& p, void* stream) {
  dispatch(p.dtype, [&](auto* element) { forward<std::remove_pointer_t<decltype(element)>>(p, stream); });
}

void grad_blocks_cuda(ModulatedBiasActGradParams& g) {
  dispatch(g.forward.dtype, [&](auto* element) { set_blocks<std::remove_pointer_t<decltype(element)>>(g); });
}

void modulated_bias_act_grad_cuda(const ModulatedBiasActGradParams& g, void* stream) {
  dispatch(g.forward.dtype, [&](auto* element) { gradient<std::remove_pointer_t<decltype(element)>>(g, stream); });
}

void kernel_energy_cuda(const KernelEnergyParams& p, void* stream) {
  dispatch(p.dtype, [&](auto* element) { energy<std::remove_pointer_t<decltype(element)>>(p, stream); });
}

}  // namespace pygan

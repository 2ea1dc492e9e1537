// CUDA kernels of bias_act: every thread keeps the biases of its channels while it walks over elements, 16 bytes at a
// time, and sums their gradients; a second, small kernel adds the sums of the blocks, in a fixed order.
//
// Long rows of one channel (contiguous): a block has a part of all rows of a channel.
// Short rows (channels_last, small pictures): the elements are a matrix whose columns are the [channels, inner] of one
// outer index, a block has some columns of some rows.
#include <type_traits>

#include "bias_act/bias_act.h"
#include "common/cuda.cuh"

namespace pygan {
namespace {

constexpr int threads = 256, blocks_per_processor = 4;
constexpr int most_column_threads = 32;  // of a block, side by side
constexpr int64_t wanted_blocks = 1 << 11;
constexpr int64_t least_vectors = 4;  // of a thread, before the work is shared by more blocks

// Elements of the widest access; double is there for checking.
template <class T>
constexpr int widest = std::is_same_v<T, double> ? 1 : vector_size<T>;

// How the elements are cut: a tile is the work of a block.
struct Tiling {
  bool long_rows;
  int vector;       // elements of an access: 16 bytes, or 1 where rows are not aligned
  int64_t tiles;    // tiles_across * slices
  int64_t across;   // channels, or tiles side by side
  int64_t slices;   // tiles of the same channels: partial sums of each column
  int64_t columns;  // sums in a slice: channels, or columns of the matrix
  int64_t rows;     // of the matrix, or of a channel
  int64_t width;    // threads side by side, short rows only
};

int64_t slices_for(int64_t across, int64_t vectors_of_thread) {
  const int64_t wanted = ceil_div(wanted_blocks, across), useful = ceil_div(vectors_of_thread, least_vectors);
  return wanted < useful ? wanted : useful;
}

template <class T>
Tiling tiling_of(const BiasActParams& p) {
  Tiling t{};
  const bool aligned = is_aligned(p.x, 16) && is_aligned(p.y, 16) && is_aligned(p.dy, 16);
  const int64_t period = p.channels * p.inner;
  t.rows = p.size / period;
  t.long_rows = p.inner * int64_t(sizeof(T)) >= 128;
  t.vector = aligned && (t.long_rows ? p.inner : period) % widest<T> == 0 ? widest<T> : 1;
  if (t.long_rows) {
    t.across = t.columns = p.channels;
    t.slices = slices_for(t.across, ceil_div(t.rows * p.inner / t.vector, threads));
  } else {
    const int64_t vectors = period / t.vector;
    t.width = 1;
    while (t.width < vectors && t.width < most_column_threads) t.width *= 2;
    t.across = ceil_div(vectors, t.width);
    t.columns = period;
    t.slices = slices_for(t.across, ceil_div(t.rows, threads / t.width));
  }
  t.tiles = t.across * t.slices;
  return t;
}

// Outputs or gradients of `vector` elements that follow each other.
template <class T, Activation act, bool gradient, int vector>
__device__ __forceinline__ void compute(const BiasActParams& p, const BiasActOptions<T>& options, int64_t begin,
                                        const Acc<T> (&biases)[vector], Acc<T> (&sums)[vector]) {
  using Access = Vector<T, vector>;
  const Access x = *reinterpret_cast<const Access*>(static_cast<const T*>(p.x) + begin);
  Access y;
  if constexpr (gradient) {
    const Access dy = *reinterpret_cast<const Access*>(static_cast<const T*>(p.dy) + begin);
#pragma unroll
    for (int k = 0; k < vector; ++k) {
      const Acc<T> dx =
          bias_act_grad_element<act, T>(load(dy.element[k]), load(x.element[k]), biases[k], options);
      store(y.element[k], dx);
      sums[k] += dx;
    }
  } else {
#pragma unroll
    for (int k = 0; k < vector; ++k) {
      store(y.element[k], bias_act_element<act, T>(load(x.element[k]), biases[k], options));
    }
  }
  *reinterpret_cast<Access*>(static_cast<T*>(p.y) + begin) = y;
}

// The sum over the threads of a block, in thread 0.
template <class A>
__device__ __forceinline__ A sum_of_block(A value, A* shared) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  __syncthreads();  // the sum before may still be read
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value = A(0);
  if (threadIdx.x == 0) {
    for (int warp = 0; warp < threads / 32; ++warp) value += shared[warp];
  }
  return value;
}

template <class T, Activation act, bool gradient, int vector>
__device__ __forceinline__ void long_rows_tile(const BiasActParams& p, const Tiling& t, int64_t tile, Acc<T>* shared) {
  using A = Acc<T>;
  const BiasActOptions<T> options(p);
  const int64_t channel = tile % p.channels, slice = tile / p.channels;
  const A bias = p.b ? load(static_cast<const T*>(p.b)[channel]) : A(0);
  A biases[vector], sums[vector];
#pragma unroll
  for (int k = 0; k < vector; ++k) biases[k] = bias, sums[k] = A(0);

  // The vectors of a channel, counted over its rows; a thread's next one is `threads` further on.
  const int64_t in_row = p.inner / vector, all = t.rows * in_row;
  const int64_t first = slice * all / t.slices + threadIdx.x, last = (slice + 1) * all / t.slices;
  int64_t row = first / in_row, column = first % in_row;
  const int64_t step_rows = threads / in_row, step_columns = threads % in_row;
  for (int64_t i = first; i < last; i += threads) {
    const int64_t begin = (row * p.channels + channel) * p.inner + column * vector;
    compute<T, act, gradient, vector>(p, options, begin, biases, sums);
    row += step_rows;
    column += step_columns;
    if (column >= in_row) column -= in_row, ++row;
  }
  if constexpr (gradient) {
    if (!p.partial) return;
    A sum = A(0);
#pragma unroll
    for (int k = 0; k < vector; ++k) sum += sums[k];
    sum = sum_of_block(sum, shared);
    if (threadIdx.x == 0) static_cast<A*>(p.partial)[slice * t.columns + channel] = sum;
  }
}

template <class T, Activation act, bool gradient, int vector>
__device__ __forceinline__ void short_rows_tile(const BiasActParams& p, const Tiling& t, int64_t tile, Acc<T>* shared) {
  using A = Acc<T>;
  const BiasActOptions<T> options(p);
  const int width = int(t.width), height = threads / width;
  const int thread_column = threadIdx.x % width, thread_row = threadIdx.x / width;
  const int64_t slice = tile / t.across, column = (tile % t.across * width + thread_column) * vector;
  const bool inside = column < t.columns;
  A biases[vector], sums[vector];
  int64_t channel = column / p.inner, in_channel = column % p.inner;
#pragma unroll
  for (int k = 0; k < vector; ++k) {
    biases[k] = p.b && inside ? load(static_cast<const T*>(p.b)[channel]) : A(0);
    sums[k] = A(0);
    if (++in_channel == p.inner) in_channel = 0, ++channel;
  }
  const int64_t last = inside ? (slice + 1) * t.rows / t.slices : 0;
  for (int64_t row = slice * t.rows / t.slices + thread_row; row < last; row += height) {
    compute<T, act, gradient, vector>(p, options, row * t.columns + column, biases, sums);
  }
  if constexpr (gradient) {
    if (!p.partial) return;
    // Over the threads of a column: halves are added to halves. Element k of thread i is at k * threads + i.
#pragma unroll
    for (int k = 0; k < vector; ++k) shared[k * threads + threadIdx.x] = sums[k];
    for (int rows = height / 2; rows > 0; rows /= 2) {
      __syncthreads();
      if (thread_row >= rows) continue;
#pragma unroll
      for (int k = 0; k < vector; ++k) {
        A* sum = shared + k * threads + threadIdx.x;
        sums[k] += sum[rows * width];
        *sum = sums[k];
      }
    }
    __syncthreads();  // before the next tile
    if (thread_row > 0 || !inside) return;
#pragma unroll
    for (int k = 0; k < vector; ++k) static_cast<A*>(p.partial)[slice * t.columns + column + k] = sums[k];
  }
}

template <class T, Activation act, bool gradient, bool long_rows, int vector>
__device__ __forceinline__ void compute_tile(const BiasActParams& p, const Tiling& t, int64_t tile, Acc<T>* shared) {
  if constexpr (long_rows) {
    long_rows_tile<T, act, gradient, vector>(p, t, tile, shared);
  } else {
    short_rows_tile<T, act, gradient, vector>(p, t, tile, shared);
  }
}

template <class T, Activation act, bool gradient, bool long_rows>
__global__ void __launch_bounds__(threads, blocks_per_processor) bias_act_kernel(BiasActParams p, Tiling t) {
  __shared__ Acc<T> shared[gradient ? (long_rows ? threads / 32 : threads * widest<T>) : 1];
  for (int64_t tile = blockIdx.x; tile < t.tiles; tile += gridDim.x) {
    if (widest<T> > 1 && t.vector > 1) {
      compute_tile<T, act, gradient, long_rows, widest<T>>(p, t, tile, shared);
    } else {
      compute_tile<T, act, gradient, long_rows, 1>(p, t, tile, shared);
    }
  }
}

// db from the partial sums [slices, channels, inner]: 32 channels a block, whose slices 8 rows of threads share.
template <class T>
__global__ void __launch_bounds__(threads, blocks_per_processor)
    sum_partial_kernel(BiasActParams p, int64_t slices, int64_t inner) {
  using A = Acc<T>;
  constexpr int width = 32, height = threads / width;
  __shared__ A shared[threads];
  const int thread_column = threadIdx.x % width, thread_row = threadIdx.x / width;
  for (int64_t first = int64_t(blockIdx.x) * width; first < p.channels; first += int64_t(gridDim.x) * width) {
    const int64_t channel = first + thread_column;
    A sum = A(0);
    for (int64_t slice = thread_row; slice < slices && channel < p.channels; slice += height) {
      const A* partial = static_cast<const A*>(p.partial) + (slice * p.channels + channel) * inner;
      for (int64_t i = 0; i < inner; ++i) sum += partial[i];
    }
    shared[threadIdx.x] = sum;
    __syncthreads();
    if (thread_row == 0 && channel < p.channels) {
      for (int row = 1; row < height; ++row) sum += shared[row * width + thread_column];
      store(static_cast<T*>(p.db)[channel], sum);
    }
    __syncthreads();  // before the next channels
  }
}

dim3 grid_of(int64_t blocks, const BiasActParams& p) {
  return dim3(unsigned(blocks < p.max_blocks ? blocks : p.max_blocks));
}

template <class T, Activation act, bool gradient>
void run(const BiasActParams& p, const Tiling& t, void* stream) {
  launch(t.long_rows ? bias_act_kernel<T, act, gradient, true> : bias_act_kernel<T, act, gradient, false>,
         grid_of(t.tiles, p), dim3(threads), 0, stream, p, t);
}

template <class T, Activation act>
void run(const BiasActParams& p, const Tiling& t, void* stream) {
  p.dy ? run<T, act, true>(p, t, stream) : run<T, act, false>(p, t, stream);
}

template <class T>
void run(const BiasActParams& p, void* stream) {
  const Tiling t = tiling_of<T>(p);
  switch (p.act) {
    case Activation::linear: run<T, Activation::linear>(p, t, stream); break;
    case Activation::relu: run<T, Activation::relu>(p, t, stream); break;
    case Activation::lrelu: run<T, Activation::lrelu>(p, t, stream); break;
    case Activation::tanh: run<T, Activation::tanh>(p, t, stream); break;
    case Activation::sigmoid: run<T, Activation::sigmoid>(p, t, stream); break;
    case Activation::elu: run<T, Activation::elu>(p, t, stream); break;
    case Activation::selu: run<T, Activation::selu>(p, t, stream); break;
    case Activation::softplus: run<T, Activation::softplus>(p, t, stream); break;
    case Activation::swish: run<T, Activation::swish>(p, t, stream); break;
  }
  if (p.db) {
    launch(sum_partial_kernel<T>, grid_of(ceil_div(p.channels, 32), p), dim3(threads), 0, stream, p, t.slices,
           t.columns / p.channels);
  }
}

}  // namespace

int64_t bias_act_cuda_workspace(const BiasActParams& p) {
  int64_t elements = 0;
  dispatch(p.dtype, [&](auto* element) {
    const Tiling t = tiling_of<std::remove_pointer_t<decltype(element)>>(p);
    elements = t.slices * t.columns;
  });
  return elements;
}

void bias_act_cuda(const BiasActParams& p, void* stream) {
  dispatch(p.dtype, [&](auto* element) { run<std::remove_pointer_t<decltype(element)>>(p, stream); });
}

}  // namespace pygan

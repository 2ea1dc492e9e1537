// CUDA kernels of the power iteration. Sums have a fixed order: lanes of a warp, warps of a block, blocks.
#include <type_traits>

#include "common/cuda.cuh"
#include "spectral_norm/spectral_norm.h"

namespace pygan {
namespace {

constexpr int warp_size = 32;
constexpr int threads = 256;
constexpr int warps = threads / warp_size;
// Blocks of W^T u are few, one per 32 columns: more warps each keep the memory busy.
constexpr int tall_threads = 512;
constexpr int tall_warps = tall_threads / warp_size;
constexpr int group_threads = 128;
static_assert(columns_of_tile == warp_size);

template <class A>
__device__ __forceinline__ A warp_sum(A x) {
  for (int step = warp_size / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// The sum of x over the block, for all its threads; `partial` holds one number per warp. Between two sums in the same
// place there must be a barrier.
template <class A>
__device__ __forceinline__ A block_sum(A x, A* partial) {
  x = warp_sum(x);
  if (threadIdx.x % warp_size == 0) partial[threadIdx.x / warp_size] = x;
  __syncthreads();
  A total = A(0);
  for (unsigned i = 0; i < blockDim.x / warp_size; ++i) total += partial[i];
  return total;
}

// Before a launch without iterations: v in the order of memory.
template <class A>
__global__ void __launch_bounds__(threads, 4) begin_kernel(PowerIterationParams p) {
  const int64_t first = int64_t(blockIdx.x) * threads + threadIdx.x;
  if (first == 0) *p.done = 0;
  for (int64_t j = first; j < p.w.cols; j += int64_t(gridDim.x) * threads) {
    static_cast<A*>(p.v_scratch)[j] = static_cast<const A*>(p.v_in)[index_in_v(j, p.w.channels, p.w.cols)];
  }
}

// v_scratch = W^T u, and the sum of its squares for every tile of 32 columns. Warps share the rows of a tile.
template <class T>
__global__ void __launch_bounds__(tall_threads, 2) transposed_kernel(PowerIterationParams p, const void* u_from) {
  using A = Acc<T>;
  __shared__ A sums[tall_warps][warp_size];
  const T* w = static_cast<const T*>(p.w.w);
  const A* u = static_cast<const A*>(u_from);
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  if (blockIdx.x == 0 && threadIdx.x == 0) *p.done = 0;
  const int64_t tiles = ceil_div(p.w.cols, columns_of_tile);
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t column = tile * columns_of_tile + lane;
    A sum = A(0);
    if (column < p.w.cols) {
#pragma unroll 8
      for (int64_t row = warp; row < p.w.rows; row += tall_warps) sum += u[row] * load(w[row * p.w.cols + column]);
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp == 0) {
      A total = A(0);
      for (int i = 0; i < tall_warps; ++i) total += sums[i][lane];
      if (column < p.w.cols) static_cast<A*>(p.v_scratch)[column] = total;
      const A squares = warp_sum(total * total);
      if (lane == 0) static_cast<A*>(p.squares)[tile] = squares;
    }
    __syncthreads();  // the sums of the next tile come to the same place
  }
}

// True in the last block of the grid to come here, which sees what the others wrote. Before the call there must be a
// barrier after the block's own writes.
__device__ __forceinline__ bool is_last_block(unsigned* done) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(done, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// What is left when u_scratch = W v is there: u, v and sigma.
template <class A>
__device__ __forceinline__ void finish(const PowerIterationParams& p, A v_factor, A* partial) {
  const volatile A* product = static_cast<const A*>(p.u_scratch);  // of other blocks: not from this one's cache
  const A* u_in = static_cast<const A*>(p.u_in);
  A* u = static_cast<A*>(p.u);
  A* v = static_cast<A*>(p.v);
  const bool iterates = p.n_power_iterations > 0;
  A sum = A(0);
  for (int64_t i = threadIdx.x; i < p.w.rows; i += threads) sum += product[i] * (iterates ? A(product[i]) : u_in[i]);
  sum = block_sum(sum, partial);
  const A norm = std::sqrt(sum), eps = A(p.eps);
  const A u_factor = inverse_norm(norm, eps);
  for (int64_t i = threadIdx.x; i < p.w.rows; i += threads) u[i] = iterates ? product[i] * u_factor : u_in[i];
  for (int64_t j = threadIdx.x; j < p.w.cols; j += threads) {
    v[index_in_v(j, p.w.channels, p.w.cols)] = static_cast<const A*>(p.v_scratch)[j] * v_factor;
  }
  if (threadIdx.x == 0) *static_cast<A*>(p.sigma) = iterates ? sigma_of_norm(norm, eps) : sum;
}

// u_scratch = W v, where v is v_scratch divided by its norm; the last block finishes the iteration. A row is summed by
// `warps_of_row` warps, 1 or all of the block.
template <class T, int width>
__global__ void __launch_bounds__(threads, 4) forward_kernel(PowerIterationParams p, int warps_of_row) {
  using A = Acc<T>;
  __shared__ A partial[warps], sums[warps];
  const T* w = static_cast<const T*>(p.w.w);
  const A* v = static_cast<const A*>(p.v_scratch);
  A v_factor = A(1);
  if (p.n_power_iterations > 0) {
    A squares = A(0);
    const int64_t tiles = ceil_div(p.w.cols, columns_of_tile);
    for (int64_t i = threadIdx.x; i < tiles; i += threads) squares += static_cast<const A*>(p.squares)[i];
    v_factor = inverse_norm(A(std::sqrt(block_sum(squares, partial))), A(p.eps));
  }
  const int warp = threadIdx.x / warp_size;
  const int rows_of_block = warps / warps_of_row;
  const int lane = threadIdx.x % (warps_of_row * warp_size);
  for (int64_t first = int64_t(blockIdx.x) * rows_of_block; first < p.w.rows;
       first += int64_t(gridDim.x) * rows_of_block) {
    const int64_t row = first + warp / warps_of_row;
    A sum = A(0);
    if (row < p.w.rows) {
      for (int64_t j = int64_t(lane) * width; j < p.w.cols; j += int64_t(warps_of_row) * warp_size * width) {
        const auto line = *reinterpret_cast<const Vector<T, width>*>(w + row * p.w.cols + j);
        const auto factors = *reinterpret_cast<const Vector<A, width>*>(v + j);
        for (int k = 0; k < width; ++k) sum += load(line.element[k]) * factors.element[k];
      }
    }
    sum = warp_sum(sum);
    if (threadIdx.x % warp_size == 0) sums[warp] = sum;
    __syncthreads();
    const int counted = threadIdx.x;  // the row that this thread adds up
    if (counted < rows_of_block && first + counted < p.w.rows) {
      A total = A(0);
      for (int i = 0; i < warps_of_row; ++i) total += sums[counted * warps_of_row + i];
      static_cast<A*>(p.u_scratch)[first + counted] = total * v_factor;
    }
    __syncthreads();  // the sums of the next rows come to the same place
  }
  if (is_last_block(p.done)) finish(p, v_factor, partial);
}

// y = W / sigma
template <class T, int width>
__global__ void __launch_bounds__(threads, 4) scale_kernel(PowerIterationParams p) {
  using A = Acc<T>;
  const A factor = A(1) / *static_cast<const A*>(p.sigma);
  const auto* w = static_cast<const Vector<T, width>*>(p.w.w);
  auto* y = static_cast<Vector<T, width>*>(p.y);
  const int64_t vectors = p.w.rows * p.w.cols / width;
  for (int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x; i < vectors; i += int64_t(gridDim.x) * threads) {
    Vector<T, width> elements = w[i];
    for (int k = 0; k < width; ++k) store(elements.element[k], load(elements.element[k]) * factor);
    y[i] = elements;
  }
}

// partial[block] = the block's share of <dy, W>.
template <class T, int width>
__global__ void __launch_bounds__(threads, 4) inner_product_kernel(NormalizeGradParams p) {
  using A = Acc<T>;
  __shared__ A partial[warps];
  const auto* dy = static_cast<const Vector<T, width>*>(p.dy);
  const auto* w = static_cast<const Vector<T, width>*>(p.w.w);
  const int64_t vectors = p.w.rows * p.w.cols / width;
  A sum = A(0);
  for (int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x; i < vectors; i += int64_t(gridDim.x) * threads) {
    const Vector<T, width> a = dy[i], b = w[i];
    for (int k = 0; k < width; ++k) sum += load(a.element[k]) * load(b.element[k]);
  }
  sum = block_sum(sum, partial);
  if (threadIdx.x == 0) static_cast<A*>(p.partial)[blockIdx.x] = sum;
}

// Threads along the columns, whose v they keep; blocks stride over columns in x and over rows in y.
template <class T, int width>
__global__ void __launch_bounds__(threads, 4) gradient_kernel(NormalizeGradParams p, int64_t partials) {
  using A = Acc<T>;
  __shared__ A partial[warps];
  A product = A(0);
  for (int64_t i = threadIdx.x; i < partials; i += threads) product += static_cast<const A*>(p.partial)[i];
  product = block_sum(product, partial);
  const A sigma = *static_cast<const A*>(p.sigma);
  const A dy_factor = A(1) / sigma, uv_factor = -product / (sigma * sigma);

  const int64_t cols = p.w.cols;
  for (int64_t j = (int64_t(blockIdx.x) * threads + threadIdx.x) * width; j < cols;
       j += int64_t(gridDim.x) * threads * width) {
    Vector<A, width> v;
    if (p.w.channels == 1) {
      v = *reinterpret_cast<const Vector<A, width>*>(static_cast<const A*>(p.v) + j);
    } else {
      for (int k = 0; k < width; ++k) v.element[k] = static_cast<const A*>(p.v)[index_in_v(j + k, p.w.channels, cols)];
    }
    for (int64_t row = blockIdx.y; row < p.w.rows; row += gridDim.y) {
      const A b = uv_factor * static_cast<const A*>(p.u)[row];
      auto elements = *reinterpret_cast<const Vector<T, width>*>(static_cast<const T*>(p.dy) + row * cols + j);
      for (int k = 0; k < width; ++k) {
        store(elements.element[k], load(elements.element[k]) * dy_factor + b * v.element[k]);
      }
      *reinterpret_cast<Vector<T, width>*>(static_cast<T*>(p.dw) + row * cols + j) = elements;
    }
  }
}

// One block per matrix, which stays in the first-level cache; the vectors are in shared memory, u first.
template <class T>
__global__ void __launch_bounds__(group_threads, 8) group_kernel(GroupParams p) {
  using A = Acc<T>;
  PYGAN_DYNAMIC_SHARED(A, u);
  __shared__ A partial[group_threads / warp_size];
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  for (int64_t matrix = blockIdx.x; matrix < p.layers * p.classes; matrix += gridDim.x) {
    const GroupLayer& layer = p.layer[matrix / p.classes];
    const int64_t index = matrix % p.classes, rows = layer.rows, cols = layer.cols;
    const T* e = static_cast<const T*>(layer.e) + index * rows * cols;
    const A* u_in = static_cast<const A*>(layer.u_in) + index * rows;
    const A* v_in = static_cast<const A*>(layer.v_in) + index * cols;
    A* v = u + rows;
    const bool iterates = p.n_power_iterations > 0;
    const A eps = A(p.eps);
    A sigma = A(0);

    __syncthreads();  // the vectors of the matrix before have been read
    for (int64_t i = threadIdx.x; i < rows; i += group_threads) u[i] = u_in[i];
    if (!iterates) {
      for (int64_t j = threadIdx.x; j < cols; j += group_threads) v[j] = v_in[j];
    }
    // Without iterations one round evaluates u^T E v.
    for (int64_t iteration = 0; iteration < (iterates ? p.n_power_iterations : 1); ++iteration) {
      __syncthreads();  // u is complete
      if (iterates) {
        A squares = A(0);
        for (int64_t j = threadIdx.x; j < cols; j += group_threads) {
          A sum = A(0);
          for (int64_t i = 0; i < rows; ++i) sum += u[i] * load(e[i * cols + j]);
          v[j] = sum;
          squares += sum * sum;
        }
        const A factor = inverse_norm(A(std::sqrt(block_sum(squares, partial))), eps);
        for (int64_t j = threadIdx.x; j < cols; j += group_threads) v[j] *= factor;
        __syncthreads();  // v is complete
      }
      A share = A(0);  // of |E v|^2 or u^T E v: a row per warp, counted by its first lane
      for (int64_t i = warp; i < rows; i += group_threads / warp_size) {
        A sum = A(0);
        for (int64_t j = lane; j < cols; j += warp_size) sum += load(e[i * cols + j]) * v[j];
        sum = warp_sum(sum);
        if (lane == 0) {
          share += sum * (iterates ? sum : u[i]);
          if (iterates) u[i] = sum;
        }
      }
      const A total = block_sum(share, partial);
      if (!iterates) {
        sigma = total;
        break;
      }
      const A norm = std::sqrt(total);
      const A factor = inverse_norm(norm, eps);
      for (int64_t i = threadIdx.x; i < rows; i += group_threads) u[i] *= factor;
      sigma = sigma_of_norm(norm, eps);
    }
    // Each thread writes what it computed itself last.
    for (int64_t i = threadIdx.x; i < rows; i += group_threads) static_cast<A*>(layer.u)[index * rows + i] = u[i];
    for (int64_t j = threadIdx.x; j < cols; j += group_threads) static_cast<A*>(layer.v)[index * cols + j] = v[j];
    if (threadIdx.x == 0) static_cast<A*>(layer.sigma)[index] = sigma;
  }
}

unsigned capped(int64_t blocks, int64_t most) { return unsigned(blocks < most ? blocks : most); }

// Calls fn with the number of elements of one access, as a constant: `wide` or 1.
template <class T, class F>
void with_width(bool wide, F&& fn) {
  if (wide) return fn(std::integral_constant<int, vector_size<T>>());
  fn(std::integral_constant<int, 1>());
}

template <class T>
void power_iteration(const PowerIterationParams& p, void* stream) {
  using A = Acc<T>;
  const bool wide = p.w.cols % vector_size<T> == 0 && is_aligned(p.w.w, 16) && is_aligned(p.y, 16);
  with_width<T>(wide, [&](auto width) {
    const int warps_of_row = p.w.cols >= int64_t(threads) * width ? warps : 1;
    const dim3 rows_grid(capped(ceil_div(p.w.rows, warps / warps_of_row), p.max_blocks));
    if (p.n_power_iterations == 0) {
      launch(begin_kernel<A>, dim3(capped(ceil_div(p.w.cols, threads), p.max_blocks)), dim3(threads), 0, stream, p);
      launch(forward_kernel<T, width()>, rows_grid, dim3(threads), 0, stream, p, warps_of_row);
    }
    for (int64_t i = 0; i < p.n_power_iterations; ++i) {
      launch(transposed_kernel<T>, dim3(capped(ceil_div(p.w.cols, columns_of_tile), p.max_blocks)), dim3(tall_threads),
             0, stream, p, i == 0 ? p.u_in : p.u);
      launch(forward_kernel<T, width()>, rows_grid, dim3(threads), 0, stream, p, warps_of_row);
    }
    if (p.y) {
      const int64_t vectors = p.w.rows * p.w.cols / width;
      launch(scale_kernel<T, width()>, dim3(capped(ceil_div(vectors, threads), p.max_blocks)), dim3(threads), 0,
             stream, p);
    }
  });
}

template <class T>
void normalize_grad(const NormalizeGradParams& p, void* stream) {
  const bool wide = p.w.cols % vector_size<T> == 0 && is_aligned(p.w.w, 16) && is_aligned(p.dy, 16) &&
                    is_aligned(p.dw, 16) && is_aligned(p.v, sizeof(Vector<Acc<T>, vector_size<T>>));
  with_width<T>(wide, [&](auto width) {
    const int64_t vectors = p.w.rows * p.w.cols / width;
    const unsigned partials = capped(ceil_div(vectors, threads), p.max_blocks);
    launch(inner_product_kernel<T, width()>, dim3(partials), dim3(threads), 0, stream, p);
    const unsigned columns = capped(ceil_div(p.w.cols, threads * width), p.max_blocks);
    const int64_t rows_of_thread = 8;  // a thread reads v once for all of them
    const unsigned rows = capped(ceil_div(p.w.rows, rows_of_thread), p.max_blocks);
    launch(gradient_kernel<T, width()>, dim3(columns, rows), dim3(threads), 0, stream, p, int64_t(partials));
  });
}

template <class T>
void group_power_iteration(const GroupParams& p, void* stream) {
  int64_t longest = 0;
  for (int64_t i = 0; i < p.layers; ++i) {
    const int64_t length = p.layer[i].rows + p.layer[i].cols;
    longest = length > longest ? length : longest;
  }
  launch(group_kernel<T>, dim3(capped(p.layers * p.classes, p.max_blocks)), dim3(group_threads),
         size_t(longest) * sizeof(Acc<T>), stream, p);
}

}  // namespace

void power_iteration_cuda(const PowerIterationParams& p, void* stream) {
  dispatch(p.w.dtype, [&](auto* element) { power_iteration<std::remove_pointer_t<decltype(element)>>(p, stream); });
}

void normalize_grad_cuda(const NormalizeGradParams& p, void* stream) {
  dispatch(p.w.dtype, [&](auto* element) { normalize_grad<std::remove_pointer_t<decltype(element)>>(p, stream); });
}

void group_power_iteration_cuda(const GroupParams& p, void* stream) {
  dispatch(p.dtype,
           [&](auto* element) { group_power_iteration<std::remove_pointer_t<decltype(element)>>(p, stream); });
}

}  // namespace pygan

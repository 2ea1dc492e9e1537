// Power iteration of weight matrices, the weight divided by its spectral norm, and the gradient of that.
//
// Miyato, Kataoka, Koyama and Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018,
// arXiv:1802.05957, algorithm 1: v = normalize(W^T u), u = normalize(W v), sigma = u^T W v.
//
// Every sum is taken in an order that depends on the sizes alone, not on threads, blocks or the instruction set.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/platform.h"

namespace pygan {

// A weight [O, C, ...] as a matrix [rows, cols]. Its columns lie as in memory, those of u and v as in the weight's
// shape, C slowest: in channels_last the two differ.
struct Matrix {
  const void* w;  // [rows, cols], rows one after the other, dtype
  int64_t rows;
  int64_t cols;
  int64_t channels;  // C if channels_last, 1 if contiguous
  Dtype dtype;
};

// Where v has the column `j` of the memory.
PYGAN_HD int64_t index_in_v(int64_t j, int64_t channels, int64_t cols) {
  return channels == 1 ? j : j % channels * (cols / channels) + j / channels;
}

// x / |x| is x times this; |x| below eps counts as eps, NaN stays NaN.
template <class A>
PYGAN_HD A inverse_norm(A norm, A eps) {
  return A(1) / (norm < eps ? eps : norm);
}

// u^T W v, where u = normalize(W v) and norm = |W v|.
template <class A>
PYGAN_HD A sigma_of_norm(A norm, A eps) {
  return norm < eps ? norm * norm / eps : norm;
}

// ---- CPU: the steps of one iteration, so that the caller spreads each over threads. Vectors have the accumulation
// type of the matrix and the order of its memory.

// out[row] = (W in)[row] for the rows [begin, end).
template <Isa>
void matrix_vector_cpu(const Matrix& m, const void* in, void* out, int64_t begin, int64_t end);

// out[col] = (W^T in)[col] for the columns [begin, end).
template <Isa>
void transposed_vector_cpu(const Matrix& m, const void* in, void* out, int64_t begin, int64_t end);

// Divides x [size] by max(|x|, eps) and returns |x|.
template <Isa>
double normalize_cpu(void* x, int64_t size, double eps, Dtype dtype);

// y[i] = W[i] * factor for the elements [begin, end) of the memory.
template <Isa>
void scale_cpu(const Matrix& m, double factor, void* y, int64_t begin, int64_t end);

// The gradient of y = W / sigma: dW = dy / sigma - <dy, W> / sigma^2 u v^T.
struct NormalizeGradParams {
  Matrix w;
  const void* dy;     // as w
  const void* u;      // [rows], accumulation type
  const void* v;      // [cols], accumulation type, in the order of memory on the CPU
  const void* sigma;  // [], accumulation type
  void* dw;           // as w
  void* partial;      // scratch: sums of parts of <dy, W>; CPU: [rows]; CUDA: [max_blocks]; accumulation type
  int64_t max_blocks = 512;  // of a CUDA grid; the rest is reached by striding
};

// partial[row] = <dy[row], W[row]> for the rows [begin, end).
template <Isa>
void inner_products_cpu(const NormalizeGradParams& p, int64_t begin, int64_t end);

// dW = dy * dy_factor + uv_factor * u v^T for the rows [begin, end).
template <Isa>
void normalize_grad_cpu(const NormalizeGradParams& p, double dy_factor, double uv_factor, int64_t begin, int64_t end);

// ---- CUDA: whole operators.

constexpr int64_t columns_of_tile = 32;

struct PowerIterationParams {
  Matrix w;
  const void* u_in;  // [rows], accumulation type, as all vectors here
  const void* v_in;  // [cols]; read only if there is no iteration
  void* u;           // [rows]
  void* v;           // [cols]
  void* sigma;       // []
  void* y;           // as w: W / sigma; null: not wanted
  void* v_scratch;   // [cols]: v before it is normalized, in the order of memory
  void* u_scratch;   // [rows]: W v
  void* squares;     // [ceil(cols / columns_of_tile)]: sums of squares of v_scratch
  unsigned* done;    // []: blocks that have finished
  int64_t n_power_iterations;
  double eps;
  int64_t max_blocks = 1 << 16;  // of a CUDA grid; the rest is reached by striding
};

// Two launches an iteration (two as well if there is none), and one more for y.
void power_iteration_cuda(const PowerIterationParams& p, void* stream);

void normalize_grad_cuda(const NormalizeGradParams& p, void* stream);

// ---- Many small matrices at once: all layers and classes of a conditional network.

struct GroupLayer {
  const void* e;     // [classes, rows, cols], contiguous, dtype
  const void* u_in;  // [classes, rows], accumulation type
  const void* v_in;  // [classes, cols]; read only if there is no iteration
  void* u;           // [classes, rows]
  void* v;           // [classes, cols]
  void* sigma;       // [classes]
  int64_t rows;
  int64_t cols;
};

constexpr int64_t max_group_layers = 48;  // of one launch, whose arguments must fit in 4 KB

struct GroupParams {
  GroupLayer layer[max_group_layers];
  int64_t layers;
  int64_t classes;
  int64_t n_power_iterations;
  double eps;
  Dtype dtype;
  int64_t max_blocks = 1 << 16;  // of a CUDA grid; the rest is reached by striding
};

// The matrices [begin, end), counted layer by layer.
template <Isa>
void group_power_iteration_cpu(const GroupParams& p, int64_t begin, int64_t end);

// All matrices in one launch.
void group_power_iteration_cuda(const GroupParams& p, void* stream);

}  // namespace pygan

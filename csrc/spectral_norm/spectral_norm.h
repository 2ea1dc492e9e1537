// Power iteration of a weight matrix: the two products it needs, for the host.
//
// Miyato, Kataoka, Koyama and Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018,
// arXiv:1802.05957, algorithm 1: v = normalize(W^T u), u = normalize(W v), sigma = u^T W v.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace pygan {

struct MatrixParams {
  const void* w;  // [rows, cols], row-major, dtype
  int64_t rows;
  int64_t cols;
  Dtype dtype;
  const void* in;  // vector in the accumulation type of dtype: [cols] for W in, [rows] for W^T in
  void* out;       // the product, same type: [rows] for W in, [cols] for W^T in
};

// out = W in, rows [begin, end).
template <Isa>
void matrix_vector_cpu(const MatrixParams& p, int64_t begin, int64_t end);

// out = W^T in, columns [begin, end).
template <Isa>
void transposed_vector_cpu(const MatrixParams& p, int64_t begin, int64_t end);

}  // namespace pygan

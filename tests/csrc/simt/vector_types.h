// The built-in vector types of CUDA, with their alignments.
#pragma once

#define SIMT_VECTOR_TYPES(Name, T)                                                                           \
  struct Name##1 { T x; };                                                                                   \
  struct alignas(2 * sizeof(T)) Name##2 { T x, y; };                                                         \
  struct Name##3 { T x, y, z; };                                                                             \
  struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) Name##4 { T x, y, z, w; };                              \
  constexpr Name##2 make_##Name##2(T x, T y) { return {x, y}; }                                              \
  constexpr Name##3 make_##Name##3(T x, T y, T z) { return {x, y, z}; }                                      \
  constexpr Name##4 make_##Name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

SIMT_VECTOR_TYPES(short, short)
SIMT_VECTOR_TYPES(ushort, unsigned short)
SIMT_VECTOR_TYPES(int, int)
SIMT_VECTOR_TYPES(uint, unsigned)
SIMT_VECTOR_TYPES(float, float)
SIMT_VECTOR_TYPES(double, double)
#undef SIMT_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

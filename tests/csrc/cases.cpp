#include "cases.h"

#include <cmath>
#include <cstdio>
#include <new>

#include "cuda_ops.h"  // written by CMakeLists.txt

#ifdef PYGAN_ON_GPU
#include <cuda_runtime.h>

#include <stdexcept>
#endif

namespace pygan::test {
namespace {

#ifdef PYGAN_ON_GPU

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

void* new_memory(size_t bytes) {
  void* data = nullptr;
  check(cudaMallocManaged(&data, bytes > 0 ? bytes : 1));
  return data;
}

void free_memory(void* data) { cudaFree(data); }

#else

constexpr size_t alignment = 256;

void* new_memory(size_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, alignment, bytes) != 0) throw std::bad_alloc();
  return data;
}

void free_memory(void* data) { std::free(data); }

#endif

}  // namespace

Memory::~Memory() {
  for (const Tensor& tensor : tensors_) free_memory(tensor.data);
}

void Memory::finish() {
#ifdef PYGAN_ON_GPU
  check(cudaDeviceSynchronize());
#endif
}

void* Memory::allocate(size_t bytes, bool is_output) {
  void* data = new_memory(bytes);
  if (is_output) std::memset(data, 0xff, bytes);
  tensors_.push_back({static_cast<unsigned char*>(data), bytes, is_output});
  return data;
}

void Memory::compare(size_t index, double got, double expected, double tolerance) {
  const bool both_nan = std::isnan(got) && std::isnan(expected);
  if (got == expected || both_nan || std::fabs(got - expected) <= tolerance * (1 + std::fabs(expected))) return;
  if (failures_++ > 0) return;
  char text[128];
  std::snprintf(text, sizeof text, "element %zu is %.9g, expected %.9g", index, got, expected);
  first_failure_ = text;
}

std::string Memory::failure() const {
  return failures_ == 0 ? "" : first_failure_ + " (" + std::to_string(failures_) + " such)";
}

std::vector<float> numbers(size_t count, unsigned seed) {
  std::vector<float> values(count);
  uint64_t state = seed + 1;
  for (float& value : values) {
    // The sum of four uniform numbers in [-1, 1) has variance 4/3.
    float sum = 0;
    for (int i = 0; i < 4; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      sum += float(int32_t(state >> 32)) * 0x1p-31f;
    }
    value = sum * 0.8660254f;
  }
  return values;
}

std::vector<Case> all_cases(Scale scale) {
  std::vector<Case> cases;
  const auto name_op = [&cases](const char* op) {
    for (Case& c : cases) {
      if (c.op.empty()) c.op = op;
    }
  };
#define PYGAN_ADD_CASES(op)       \
  add_##op##_cases(cases, scale); \
  name_op(#op);
  PYGAN_FOR_EACH_CUDA_OP(PYGAN_ADD_CASES)
#undef PYGAN_ADD_CASES
  return cases;
}

}  // namespace pygan::test

// The importable module pygan._C: facts about the build. Loading it registers the operators of the `_torch.cpp` files.
#include <pybind11/pybind11.h>

#include "common/isa.h"

PYBIND11_MODULE(_C, m) {
  m.attr("csrc_digest") = PYGAN_CSRC_DIGEST;
  m.attr("compiler") = PYGAN_COMPILER;
  m.attr("torch_target") = PYGAN_TORCH_TARGET;
  m.attr("cuda_archs") = PYGAN_CUDA_ARCHS;  // "" without CUDA kernels
  m.def("isa", &pygan::isa_name, "Instruction set of the CPU kernels in use: baseline, avx2 or avx512.");
}

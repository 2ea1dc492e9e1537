// Instruction sets of the CPU kernels: each `_cpu.cpp` is compiled once per set, the best one is chosen at run time.
//
// A kernel is declared as `template <Isa> void kernel(...)`; its file defines the specialization `kernel<PYGAN_ISA>`.
#pragma once

namespace pygan {

enum class Isa { baseline, avx2, avx512 };

// What this processor offers, or the lesser set that the environment variable PYGAN_ISA names. Decided once.
Isa isa();

const char* isa_name();

}  // namespace pygan

#ifdef PYGAN_X86_LEVELS
#define PYGAN_BEST_ISA(kernel)                                       \
  (::pygan::isa() == ::pygan::Isa::avx512 ? kernel<::pygan::Isa::avx512> \
   : ::pygan::isa() == ::pygan::Isa::avx2 ? kernel<::pygan::Isa::avx2>   \
                                          : kernel<::pygan::Isa::baseline>)
#else
#define PYGAN_BEST_ISA(kernel) (kernel<::pygan::Isa::baseline>)
#endif

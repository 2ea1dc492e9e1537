#include "common/isa.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace pygan {
namespace {

constexpr const char* names[] = {"baseline", "avx2", "avx512"};

Isa supported() {
#ifdef PYGAN_X86_LEVELS
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa chosen() {
  const Isa best = supported();
  const char* wanted = std::getenv("PYGAN_ISA");
  for (Isa lesser : {Isa::baseline, Isa::avx2}) {
    if (wanted && lesser < best && std::strcmp(wanted, names[int(lesser)]) == 0) return lesser;
  }
  return best;
}

}  // namespace

Isa isa() {
  static const Isa value = chosen();
  return value;
}

const char* isa_name() { return names[int(isa())]; }

}  // namespace pygan

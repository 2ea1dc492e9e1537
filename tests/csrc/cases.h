// Launches of the CUDA kernels, with what they read, write and should give: run by the sanitizers, under several thread
// schedules, on mutants of the kernels and by the memory trace.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "common/dtype.h"

namespace pygan::test {

// small: odd sizes that reach every branch, barrier and loop; large: tensors of 16 MB for the trace, unchecked.
enum class Scale { small, large };

// The global memory of one case: its tensors, and whether the outputs were as expected.
class Memory {
 public:
  struct Tensor {
    unsigned char* data;
    size_t bytes;
    bool is_output;
  };

  Memory() = default;
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  template <class T>
  T* input(const std::vector<T>& values) {
    T* data = static_cast<T*>(allocate(values.size() * sizeof(T), false));
    for (size_t i = 0; i < values.size(); ++i) data[i] = values[i];
    return data;
  }

  // Filled with 0xff, which is NaN.
  template <class T>
  T* output(size_t count) {
    return static_cast<T*>(allocate(count * sizeof(T), true));
  }

  // Compares |got - expected| with tolerance * (1 + |expected|); NaN in got is a failure unless expected too.
  template <class T>
  void expect(const T* got, const std::vector<double>& expected, double tolerance) {
    finish();
    for (size_t i = 0; i < expected.size(); ++i) {
      if constexpr (std::is_integral_v<T>) {
        compare(i, double(got[i]), expected[i], tolerance);
      } else {
        compare(i, double(load(got[i])), expected[i], tolerance);
      }
    }
  }

  // Bytes that the kernel has to move beyond once each tensor: halos of tiles, vectors that stay in the cache.
  void allow(size_t extra_bytes) { allowed_ += extra_bytes; }

  bool ok() const { return failures_ == 0; }

  // The first value that was not as expected, and how many there were; empty if there was none.
  std::string failure() const;

  // Waits for the kernels. The emulator has none to wait for; on a GPU what they did wrong is thrown here.
  static void finish();

  const std::vector<Tensor>& tensors() const { return tensors_; }
  size_t allowed() const { return allowed_; }

 private:
  // Aligned as cudaMalloc does it, and not a byte longer than asked for; on a GPU in memory that the host reads too.
  void* allocate(size_t bytes, bool is_output);
  void compare(size_t index, double got, double expected, double tolerance);

  std::vector<Tensor> tensors_;
  size_t allowed_ = 0;
  size_t failures_ = 0;
  std::string first_failure_;
};

struct Case {
  std::string name;  // "upfirdn2d up 2 channels_last f32"
  std::function<void(Memory&)> run;
  std::string op = "";  // set by all_cases
};

// Numbers of a fixed sequence, about standard normal.
std::vector<float> numbers(size_t count, unsigned seed);

// Each in tests/csrc/<op>_cases.cpp.
void add_bias_act_cases(std::vector<Case>& cases, Scale scale);
void add_upfirdn2d_cases(std::vector<Case>& cases, Scale scale);
void add_modulated_conv2d_cases(std::vector<Case>& cases, Scale scale);
void add_spectral_norm_cases(std::vector<Case>& cases, Scale scale);

// All of them.
std::vector<Case> all_cases(Scale scale);

}  // namespace pygan::test

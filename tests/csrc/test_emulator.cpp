// Tests of the emulator: what its kernels give, and that it and the sanitizers notice broken ones.
//
//   emulator_fibers            every test, under four schedules
//   emulator_tsan race         one broken kernel, for the sanitizer to report
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "common/cuda.cuh"

namespace {

using pygan::launch;

#if defined(__SANITIZE_ADDRESS__) || defined(SIMT_RACES)
constexpr bool sanitized = true;  // which leaves no place for poison, and objects to broken kernels itself
#else
constexpr bool sanitized = false;
#endif

int failures = 0;

void check(bool good, const char* what) {
  if (good) return;
  ++failures;
  std::printf("%s\n", what);
}

// Whether the launch ends with an error that begins so.
template <class F>
bool refuses(F&& run, const std::string& beginning) {
  try {
    run();
  } catch (const simt::Error& error) {
    if (std::string(error.what()).rfind(beginning, 0) == 0) return true;
    std::printf("%s\n", error.what());
  }
  return false;
}

// ---- kernels ----

template <bool first_barrier>
__global__ void __launch_bounds__(96, 1) block_sums(const float* x, float* sums, int size) {
  __shared__ float part[96];
  float sum = 0;
  for (int i = blockIdx.x * 96 + threadIdx.x; i < size; i += gridDim.x * 96) sum += x[i];
  part[threadIdx.x] = sum;
  if (first_barrier) __syncthreads();
  for (int width = 48; width >= 3; width /= 2) {
    if (int(threadIdx.x) < width) part[threadIdx.x] += part[threadIdx.x + width];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = part[0] + part[1] + part[2];
}

__global__ void __launch_bounds__(64, 1) warp_intrinsics(float* out) {
  const int lane = threadIdx.x % 32;
  float sum = float(lane);
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffff, sum, offset);
  float everywhere = float(lane);
  for (int offset = 1; offset < 32; offset *= 2) everywhere += __shfl_xor_sync(0xffffffff, everywhere, offset);
  bool good = lane != 0 || sum == 496;
  good &= everywhere == 496;
  good &= __shfl_sync(0xffffffff, lane, 9, 8) == lane / 8 * 8 + 1;
  good &= __shfl_up_sync(0xffffffff, lane, 3, 16) == (lane % 16 < 3 ? lane : lane - 3);
  good &= __ballot_sync(0xffffffff, lane % 2) == 0xaaaaaaaa;
  good &= __any_sync(0xffffffff, lane == 7) && !__all_sync(0xffffffff, lane == 7);
  if (lane < 8) good &= __shfl_sync(0xffu, lane, 3) == 3;
  if (lane >= 8) good &= __shfl_sync(0xffffff00u, double(lane), 31) == 31;
  out[threadIdx.x] = good;
}

__global__ void __launch_bounds__(40, 1) ended_threads(float* out) {
  if (threadIdx.x % 4 == 3) return;
  const unsigned votes = __ballot_sync(0xffffffff, 1);
  const int count = __syncthreads_count(threadIdx.x < 8);
  const bool some = __syncthreads_or(threadIdx.x == 8), all = __syncthreads_and(threadIdx.x != 8);
  out[threadIdx.x] = float(votes == (threadIdx.x < 32 ? 0x77777777u : 0x77u) && count == 6 && some && !all);
}

__global__ void atomics(unsigned* counter, float* sum, int* largest) {
  atomicInc(counter, 99);
  atomicAdd(sum, 0.5f);
  atomicMax(largest, int(threadIdx.x));
}

__global__ void reads_unwritten_shared(float* out) {
  __shared__ float fixed[64];
  PYGAN_DYNAMIC_SHARED(float, dynamic);
  if (threadIdx.x >= 32) out[threadIdx.x] = fixed[threadIdx.x] + dynamic[threadIdx.x];
  fixed[threadIdx.x] = dynamic[threadIdx.x] = 0;
}

__global__ void diverges() {
  if (threadIdx.x % 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void never_all_come() {
  if (threadIdx.x < 32) {
    __syncwarp(threadIdx.x < 16 ? 0xffffu : 0xffff0000u);
    if (threadIdx.x < 16) __syncthreads();
    else __syncwarp(0xffffffff);
  }
}

__global__ void overruns(float* out) { out[threadIdx.x + 1] = 1; }

__global__ void overruns_shared() {
  PYGAN_DYNAMIC_SHARED(float, shared);
  shared[threadIdx.x + 1] = 1;
}

__global__ void overruns_static_shared(int size) {
  __shared__ float shared[64];
  shared[int(threadIdx.x) + size] = 1;
}

__global__ void misaligned(float* out) {
  *reinterpret_cast<pygan::Vector<float, 4>*>(out + 1) = {};
}

__global__ void waits_for_warp_only(float* out) {
  __shared__ float shared[64];
  shared[threadIdx.x] = 1;
  __syncwarp();
  out[threadIdx.x] = shared[threadIdx.x ^ 32];
}

__global__ void waits_for_warp_as_needed(float* out) {
  __shared__ float shared[64];
  for (int i = 0; i < 3; ++i) {
    shared[threadIdx.x] = float(i);
    __syncwarp();
    out[threadIdx.x] = shared[threadIdx.x ^ 1];
    __syncwarp();
  }
}

// ---- tests ----

void test_block_sums() {
  std::vector<float> x(1000), sums(3);
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(i);
  launch(block_sums<true>, dim3(3), dim3(96), 0, nullptr, x.data(), sums.data(), 1000);
  check(sums[0] + sums[1] + sums[2] == 499500, "block sums");
}

void test_warps() {
  std::vector<float> out(64);
  launch(warp_intrinsics, dim3(2), dim3(64), 0, nullptr, out.data());
  for (float good : out) check(good == 1, "warp intrinsics");
  launch(waits_for_warp_as_needed, dim3(2), dim3(64), 0, nullptr, out.data());
  for (float value : out) check(value == 2, "__syncwarp");
}

void test_ended_threads() {
  std::vector<float> out(40);
  launch(ended_threads, dim3(1), dim3(40), 0, nullptr, out.data());
  for (int i = 0; i < 40; ++i) check(out[size_t(i)] == (i % 4 != 3), "barriers after some threads have ended");
}

void test_atomics() {
  unsigned counter = 0;
  float sum = 0;
  int largest = 0;
  launch(atomics, dim3(3), dim3(50), 0, nullptr, &counter, &sum, &largest);
  check(counter == 50 && sum == 75 && largest == 49, "atomics");
}

void test_poison() {
  std::vector<float> out(64);
  launch(reads_unwritten_shared, dim3(7), dim3(64), 64 * sizeof(float), nullptr, out.data());
  for (size_t i = 32; i < 64; ++i) check(std::isnan(out[i]), "unwritten shared memory is NaN");
}

void test_errors() {
  const auto runs = [](auto kernel, dim3 grid, dim3 block, size_t bytes = 0) {
    return [=] { launch(kernel, grid, block, bytes, nullptr); };
  };
  check(refuses(runs(diverges, 1, 64), "divergent threads"), "divergence");
  check(refuses(runs(never_all_come, 1, 64), "deadlock"), "deadlock");
  check(refuses(runs(diverges, 1, 1025), "launch: a block"), "block too large");
  check(refuses(runs(diverges, 1, 0), "launch: a block"), "empty block");
  check(refuses(runs(diverges, dim3(1, 65536), 32), "launch: a grid"), "grid too high");
  check(refuses(runs(diverges, 0, 32), "launch: a grid"), "empty grid");
  check(refuses(runs(diverges, 1, 32, 200 << 10), "launch: 204800 bytes"), "too much shared memory");
}

// Without its barrier the sum is wrong for some order of the threads.
void test_schedules_differ() {
  std::vector<float> x(96, 1), sums(1);
  bool wrong = false;
  for (unsigned schedule = 0; schedule < 4; ++schedule) {
    simt::set_schedule(schedule);
    launch(block_sums<false>, dim3(1), dim3(96), 0, nullptr, x.data(), sums.data(), 96);
    wrong |= !(sums[0] == 96);
  }
  check(wrong, "a missing barrier shows under some schedule");
}

void run_broken(const std::string& name) {
  std::vector<float> out(64);
  if (name == "race") launch(waits_for_warp_only, dim3(1), dim3(64), 0, nullptr, out.data());
  if (name == "overrun") launch(overruns, dim3(1), dim3(64), 0, nullptr, out.data());
  if (name == "shared overrun") launch(overruns_shared, dim3(1), dim3(64), 64 * sizeof(float), nullptr);
  if (name == "static shared overrun") launch(overruns_static_shared, dim3(1), dim3(64), 0, nullptr, 1);
  if (name == "misaligned") launch(misaligned, dim3(1), dim3(1), 0, nullptr, out.data());
}

}  // namespace

int main(int count, char** words) {
  if (count > 1) {
    run_broken(words[1]);
    return 0;
  }
  for (unsigned schedule = 0; schedule < 4; ++schedule) {
    simt::set_schedule(schedule);
    test_block_sums();
    test_warps();
    test_ended_threads();
    test_atomics();
    if (sanitized) continue;
    test_poison();
    test_errors();
  }
  if (!sanitized) test_schedules_differ();
  std::printf("%d failures\n", failures);
  return failures > 0;
}

#include "memory_trace.h"

#include <algorithm>
#include <memory>

#include "state.h"

extern "C" char __executable_start, etext;  // from the linker: the program's code lies between

namespace pygan::test {
namespace {

constexpr unsigned sector_bytes = 32, word_bytes = 4, banks = 32;
constexpr unsigned max_access_bytes = 16;

// The accesses of the lanes of one warp.
struct Request {
  unsigned lanes = 0;
  uintptr_t address[simt::warp_size];
};

// A place in the code that reads or writes memory, in the running block.
struct Site {
  bool write;
  unsigned bytes;
  std::vector<uint32_t> times;                 // by thread: how often it came here
  std::vector<std::vector<Request>> requests;  // by warp and time
};

struct State {
  const Memory* memory = nullptr;
  Counts counts;
  unsigned threads = 0;
  simt::Range dynamic_shared, static_shared;
  std::vector<uint32_t> site_of;  // by place in the code: its number + 1
  std::vector<Site> sites;
  std::vector<uint64_t> runs;  // by place in the code
  std::vector<uintptr_t> sectors_of_block;
  Memory::Tensor last{};       // tensor that was accessed last
};

State* state = nullptr;  // null: nothing is traced

size_t place(const void* address) { return size_t(static_cast<const char*>(address) - &__executable_start); }

bool is_shared(const void* address) {
  return state->dynamic_shared.contains(address) || state->static_shared.contains(address);
}

bool is_within(const Memory::Tensor& tensor, const void* address) {
  return size_t(static_cast<const unsigned char*>(address) - tensor.data) < tensor.bytes;
}

// What is neither shared nor in a tensor is on the stack, or of the host.
bool is_global(const void* address) {
  if (is_within(state->last, address)) return true;
  for (const Memory::Tensor& tensor : state->memory->tensors()) {
    if (!is_within(tensor, address)) continue;
    state->last = tensor;
    return true;
  }
  return false;
}

// Puts the distinct values first, in order; returns how many there are.
template <class T>
size_t make_distinct(T* values, size_t count) {
  if (!std::is_sorted(values, values + count)) std::sort(values, values + count);
  return size_t(std::unique(values, values + count) - values);
}

// Those that lanes have in common count once.
void count_sectors(const Request& request, const Site& site, Counts& counts) {
  uintptr_t touched[2 * simt::warp_size], addresses[simt::warp_size];
  size_t count = 0;
  for (unsigned i = 0; i < request.lanes; ++i) {
    const uintptr_t first = request.address[i] / sector_bytes;
    const uintptr_t last = (request.address[i] + site.bytes - 1) / sector_bytes;
    touched[count++] = first;
    if (last != first) touched[count++] = last;
  }
  count = make_distinct(touched, count);
  (site.write ? counts.written_sectors : counts.read_sectors) += count;
  state->sectors_of_block.insert(state->sectors_of_block.end(), touched, touched + count);
  std::copy(request.address, request.address + request.lanes, addresses);
  counts.ideal_sectors += (make_distinct(addresses, request.lanes) * site.bytes + sector_bytes - 1) / sector_bytes;
}

// A pass serves one word of every bank, to any number of lanes.
void count_wavefronts(const Request& request, unsigned bytes, Counts& counts) {
  uintptr_t words[simt::warp_size * max_access_bytes / word_bytes];
  size_t count = 0;
  for (unsigned i = 0; i < request.lanes; ++i) {
    const uintptr_t last = (request.address[i] + bytes - 1) / word_bytes;
    for (uintptr_t word = request.address[i] / word_bytes; word <= last; ++word) words[count++] = word;
  }
  count = make_distinct(words, count);
  unsigned in_bank[banks] = {};
  unsigned most = 0;
  for (size_t i = 0; i < count; ++i) most = std::max(most, ++in_bank[words[i] % banks]);
  counts.wavefronts += most;
  counts.ideal_wavefronts += (count + banks - 1) / banks;
}

void count_request(const Site& site, const Request& request) {
  if (is_shared(reinterpret_cast<const void*>(request.address[0]))) {
    count_wavefronts(request, site.bytes, state->counts);
  } else {
    count_sectors(request, site, state->counts);
  }
}

Site& site_at(const void* code, unsigned bytes, bool write) {
  uint32_t& number = state->site_of[place(code)];
  if (number == 0) {
    state->sites.push_back({write, bytes, {}, {}});
    number = uint32_t(state->sites.size());
  }
  return state->sites[number - 1];
}

void access(const void* address, unsigned bytes, bool write, const void* code) {
  const simt::Thread* thread = simt::running;
  if (!state || !thread || (!is_shared(address) && !is_global(address))) return;
  Site& site = site_at(code, bytes, write);
  if (site.times.empty()) {
    site.times.resize(state->threads);
    site.requests.resize((state->threads + simt::warp_size - 1) / simt::warp_size);
  }
  const uint32_t time = site.times[thread->rank]++;
  std::vector<Request>& requests = site.requests[thread->warp];
  if (requests.size() <= time) requests.resize(time + 1);
  Request& request = requests[time];
  request.address[request.lanes++] = reinterpret_cast<uintptr_t>(address);
}

void access_range(const void* address, size_t bytes, bool write, const void* code) {
  const auto* begin = static_cast<const unsigned char*>(address);
  for (size_t done = 0; done < bytes; done += max_access_bytes) {
    access(begin + done, unsigned(std::min<size_t>(bytes - done, max_access_bytes)), write, code);
  }
}

}  // namespace

MemoryTrace::MemoryTrace(const Memory& memory) {
  state = new State;
  state->memory = &memory;
  state->site_of.resize(place(&etext));
  state->runs.resize(place(&etext));
  simt::set_observer(this);
}

MemoryTrace::~MemoryTrace() {
  simt::set_observer(nullptr);
  delete state;
  state = nullptr;
}

void MemoryTrace::launch_begins(const void* kernel, dim3, dim3 block, size_t dynamic_shared_bytes) {
  state->threads = block.x * block.y * block.z;
  state->counts.launches.push_back({kernel, state->threads, dynamic_shared_bytes});
  state->dynamic_shared = simt::dynamic_shared_range();
  state->static_shared = simt::static_shared_range();
  for (Site& site : state->sites) site.times.clear();
}

void MemoryTrace::block_ends() {
  for (Site& site : state->sites) {
    if (site.times.empty()) continue;
    std::fill(site.times.begin(), site.times.end(), 0);
    for (std::vector<Request>& requests : site.requests) {
      for (const Request& request : requests) {
        if (request.lanes > 0) count_request(site, request);
      }
      requests.clear();
    }
  }
  std::vector<uintptr_t>& sectors = state->sectors_of_block;
  state->counts.block_sectors += make_distinct(sectors.data(), sectors.size());
  sectors.clear();
}

const Counts& MemoryTrace::counts() const { return state->counts; }

std::vector<std::pair<uintptr_t, uint64_t>> MemoryTrace::stretches() const {
  std::vector<std::pair<uintptr_t, uint64_t>> result;
  const auto start = reinterpret_cast<uintptr_t>(&__executable_start);
  for (size_t i = 0; i < state->runs.size(); ++i) {
    if (state->runs[i] > 0) result.emplace_back(start + i, state->runs[i]);
  }
  return result;
}

}  // namespace pygan::test

// ---- the instrumentation's side ----

using namespace pygan::test;

extern "C" {

void __sanitizer_cov_trace_pc() {
  if (state && simt::running) ++state->runs[place(__builtin_return_address(0))];
}

#define PYGAN_TRACE_ACCESS(bytes)                                                                                    \
  void __tsan_read##bytes(void* address) { access(address, bytes, false, __builtin_return_address(0)); }             \
  void __tsan_write##bytes(void* address) { access(address, bytes, true, __builtin_return_address(0)); }             \
  void __tsan_unaligned_read##bytes(void* address) { access(address, bytes, false, __builtin_return_address(0)); }   \
  void __tsan_unaligned_write##bytes(void* address) { access(address, bytes, true, __builtin_return_address(0)); }
PYGAN_TRACE_ACCESS(1)
PYGAN_TRACE_ACCESS(2)
PYGAN_TRACE_ACCESS(4)
PYGAN_TRACE_ACCESS(8)
PYGAN_TRACE_ACCESS(16)

void __tsan_read_range(void* address, size_t bytes) {
  access_range(address, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  access_range(address, bytes, true, __builtin_return_address(0));
}

// An atomic operation reads and writes its sector.
#define PYGAN_TRACE_ATOMIC(bits, T)                                                                           \
  T __tsan_atomic##bits##_load(const volatile T* address, int) {                                              \
    access(const_cast<const T*>(address), sizeof(T), false, __builtin_return_address(0));                     \
    return *address;                                                                                          \
  }                                                                                                           \
  void __tsan_atomic##bits##_store(volatile T* address, T value, int) {                                       \
    access(const_cast<const T*>(address), sizeof(T), true, __builtin_return_address(0));                      \
    *address = value;                                                                                         \
  }                                                                                                           \
  T __tsan_atomic##bits##_fetch_add(volatile T* address, T value, int) {                                      \
    access(const_cast<const T*>(address), sizeof(T), true, __builtin_return_address(0));                      \
    const T before = *address;                                                                                \
    *address = T(before + value);                                                                             \
    return before;                                                                                            \
  }                                                                                                           \
  T __tsan_atomic##bits##_exchange(volatile T* address, T value, int) {                                       \
    access(const_cast<const T*>(address), sizeof(T), true, __builtin_return_address(0));                      \
    const T before = *address;                                                                                \
    *address = value;                                                                                         \
    return before;                                                                                            \
  }                                                                                                           \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* address, T* expected, T value, int, int) {    \
    access(const_cast<const T*>(address), sizeof(T), true, __builtin_return_address(0));                      \
    const T before = *address;                                                                                \
    const bool equal = before == *expected;                                                                   \
    if (equal) *address = value;                                                                              \
    *expected = before;                                                                                       \
    return equal;                                                                                             \
  }                                                                                                           \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* address, T* expected, T value, int a, int b) {  \
    return __tsan_atomic##bits##_compare_exchange_strong(address, expected, value, a, b);                     \
  }
PYGAN_TRACE_ATOMIC(32, uint32_t)
PYGAN_TRACE_ATOMIC(64, uint64_t)

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}

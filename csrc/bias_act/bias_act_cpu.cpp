// CPU loops of bias_act. Compiled once per instruction set, which PYGAN_ISA names.
#include <cstring>
#include <type_traits>

#include "bias_act/bias_act.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace pygan {
namespace {

constexpr int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

// Elements that are computed at a time, a whole number of cache lines. More than 16: GCC unrolls such a loop instead of
// vectorizing it.
constexpr int64_t group = 32;

// Stores past the caches: lines that are written whole need not be read first, which saves a third of the traffic.
#ifdef __SSE2__
#if defined(__AVX512F__)
using Line = __m512i;
inline void stream(Line* to, const Line* from) { _mm512_stream_si512(to, _mm512_loadu_si512(from)); }
#elif defined(__AVX__)
using Line = __m256i;
inline void stream(Line* to, const Line* from) { _mm256_stream_si256(to, _mm256_loadu_si256(from)); }
#else
using Line = __m128i;
inline void stream(Line* to, const Line* from) { _mm_stream_si128(to, _mm_loadu_si128(from)); }
#endif

template <class T>
void stream(T* to, const T (&from)[group]) {
  constexpr int64_t lines = group * sizeof(T) / sizeof(Line);
  for (int64_t i = 0; i < lines; ++i) stream(reinterpret_cast<Line*>(to) + i, reinterpret_cast<const Line*>(from) + i);
}

inline void finish_streams() { _mm_sfence(); }
constexpr bool can_stream = true;
#else
template <class T>
void stream(T* to, const T (&from)[group]) {
  std::memcpy(to, from, sizeof from);
}

inline void finish_streams() {}
constexpr bool can_stream = false;
#endif

constexpr int64_t cache_line = 64;  // bytes

// Asks for what the loop will reach in two kilobytes; the hardware looks less far, and not across pages.
template <class T>
void prefetch(const T* group_begin) {
  const char* ahead = reinterpret_cast<const char*>(group_begin) + 2048;
  for (int64_t i = 0; i < group * int64_t(sizeof(T)); i += cache_line) __builtin_prefetch(ahead + i);
}

// Elements that follow each other in memory.
template <class T>
struct Stretch {
  int64_t count;
  const T* x;   // or what the forward pass saved
  const T* dy;  // null: forward
  T* y;
  // A bias and a sum of gradients for each element, or for each of a group, over and over.
  const Acc<T>* biases;
  Acc<T>* sums;
  bool one_group;
  bool streams;  // y is at a line of the cache

  Stretch part(int64_t begin, int64_t new_count) const {
    const int64_t of_biases = one_group ? 0 : begin;
    return {new_count, x + begin, dy ? dy + begin : nullptr, y + begin, biases + of_biases, sums + of_biases, one_group,
            streams};
  }
};

// Computes the elements [0, group): outputs, or gradients, which are added to the sums.
template <class T, Activation act, bool gradient>
inline __attribute__((always_inline)) void compute_group(const BiasActOptions<T>& options, const T* __restrict x,
                                                         const T* __restrict dy, const Acc<T>* __restrict biases,
                                                         Acc<T>* __restrict sums, T* __restrict y) {
  for (int64_t j = 0; j < group; ++j) {
    if constexpr (gradient) {
      const Acc<T> bias = saves_output(act) ? Acc<T>(0) : biases[j];
      const Acc<T> dx = bias_act_grad_element<act, T>(load(dy[j]), load(x[j]), bias, options);
      store(y[j], dx);
      sums[j] += dx;
    } else {
      store(y[j], bias_act_element<act, T>(load(x[j]), biases[j], options));
    }
  }
}

template <class T, Activation act, bool gradient>
void compute(const BiasActOptions<T>& given, const Stretch<T>& s) {
  const BiasActOptions<T> options = given;
  int64_t j = 0;
  for (; j + group <= s.count; j += group) {
    if (s.streams) {
      prefetch(s.x + j);
      if constexpr (gradient) prefetch(s.dy + j);
    }
    const int64_t b = s.one_group ? 0 : j;
    alignas(cache_line) T y[group];
    compute_group<T, act, gradient>(options, s.x + j, s.dy + (gradient ? j : 0), s.biases + b, s.sums + b, y);
    if (s.streams) {
      stream(s.y + j, y);
    } else {
      std::memcpy(s.y + j, y, sizeof y);
    }
  }
  if (j == s.count) return;
  // The rest of the stretch as the beginning of a whole group.
  const Stretch<T> rest = s.part(j, s.count - j);
  const size_t bytes = rest.count * sizeof(T), wide_bytes = rest.count * sizeof(Acc<T>);
  T x[group] = {}, dy[group] = {}, y[group];
  Acc<T> biases[group] = {}, sums[group] = {};
  std::memcpy(x, rest.x, bytes);
  if (gradient) std::memcpy(dy, rest.dy, bytes);
  std::memcpy(biases, rest.biases, wide_bytes);
  std::memcpy(sums, rest.sums, wide_bytes);
  compute<T, act, gradient>(options, {group, x, dy, y, biases, sums, true, false});
  std::memcpy(rest.y, y, bytes);
  std::memcpy(rest.sums, sums, wide_bytes);
}

template <class T>
using Compute = void (*)(const BiasActOptions<T>&, const Stretch<T>&);

// In the order of Activation.
template <class T, bool gradient>
constexpr Compute<T> compute_by_activation[] = {
    compute<T, Activation::linear, gradient>,  compute<T, Activation::relu, gradient>,
    compute<T, Activation::lrelu, gradient>,   compute<T, Activation::tanh, gradient>,
    compute<T, Activation::sigmoid, gradient>, compute<T, Activation::elu, gradient>,
    compute<T, Activation::selu, gradient>,    compute<T, Activation::softplus, gradient>,
    compute<T, Activation::swish, gradient>};

template <class T>
class Loops {
 public:
  using A = Acc<T>;

  Loops(const BiasActParams& p, const BiasActTiling& t)
      : p_(p),
        t_(t),
        options_(p),
        compute_(p.dy ? compute_by_activation<T, true>[int(p.act)] : compute_by_activation<T, false>[int(p.act)]) {
    // What is smaller may still be in a cache when it is read again.
    constexpr int64_t least_streamed_bytes = 8 << 20, least_streamed_row = 256;
    streams_ = can_stream && p.size * int64_t(sizeof(T)) >= least_streamed_bytes &&
               (t.segments == 0 || p.inner >= least_streamed_row);
  }

  void run(int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) t_.segments > 0 ? segment_of_row(unit) : block_of_matrix(unit);
    if (streams_) finish_streams();
  }

 private:
  // A part of a row, which is of one channel.
  void segment_of_row(int64_t unit) {
    const int64_t row = unit / t_.segments, segment = unit % t_.segments, channel = row % p_.channels;
    const int64_t begin = segment * p_.inner / t_.segments, end = (segment + 1) * p_.inner / t_.segments;
    fill(biases_, group, bias(channel));
    fill(sums_, group, A(0));
    compute_stretch(row * p_.inner + begin, end - begin, true);
    if (!p_.partial) return;
    for (int64_t width = group / 2; width > 0; width /= 2) {
      for (int64_t j = 0; j < width; ++j) sums_[j] += sums_[width + j];
    }
    partial()[(row / p_.channels * t_.segments + segment) * p_.channels + channel] = sums_[0];
  }

  // Some columns of some rows of the matrix that the elements are in memory, the last row perhaps in part.
  void block_of_matrix(int64_t unit) {
    const int64_t blocks_of_columns = detail::parts(t_.columns, t_.unit_columns);
    const int64_t slice = unit / blocks_of_columns, column = unit % blocks_of_columns * t_.unit_columns;
    const int64_t columns = min(t_.unit_columns, t_.columns - column);
    const int64_t first_channel = column / p_.inner;
    for (int64_t j = 0, channel = first_channel; j < columns; j += p_.inner) {
      fill(biases_ + j, p_.inner, bias(channel));
      if (++channel == p_.channels) channel = 0;
    }
    fill(sums_, columns, A(0));
    const int64_t last_row = min(t_.rows, (slice + 1) * t_.unit_rows);
    for (int64_t row = slice * t_.unit_rows; row < last_row; ++row) {
      const int64_t begin = row * t_.columns + column;
      compute_stretch(begin, min(columns, p_.size - begin), false);
    }
    if (p_.partial) fold(columns, partial() + slice * p_.channels + first_channel);
  }

  void compute_stretch(int64_t begin, int64_t count, bool one_group) {
    Stretch<T> all{count,
                   static_cast<const T*>(p_.x) + begin,
                   p_.dy ? static_cast<const T*>(p_.dy) + begin : nullptr,
                   static_cast<T*>(p_.y) + begin,
                   biases_,
                   sums_,
                   one_group,
                   false};
    if (!streams_) return compute_(options_, all);
    const int64_t past_line = reinterpret_cast<uintptr_t>(all.y) % cache_line / sizeof(T);
    const int64_t head = past_line == 0 ? 0 : min(cache_line / sizeof(T) - past_line, count);
    if (head > 0) compute_(options_, all.part(0, head));
    all.streams = true;
    compute_(options_, all.part(head, count - head));
  }

  // Sums the columns of each channel.
  void fold(int64_t columns, A* to) {
    const int64_t distinct = min(columns, p_.channels * p_.inner);
    for (int64_t copy = distinct; copy < columns; copy += distinct) {
      for (int64_t j = 0; j < distinct; ++j) sums_[j] += sums_[copy + j];
    }
    for (int64_t j = 0; j < distinct; j += p_.inner) {
      A sum = sums_[j];
      for (int64_t i = 1; i < p_.inner; ++i) sum += sums_[j + i];
      to[j / p_.inner] = sum;
    }
  }

  static void fill(A* values, int64_t count, A value) {
    for (int64_t j = 0; j < count; ++j) values[j] = value;
  }

  A bias(int64_t channel) const { return p_.b ? load(static_cast<const T*>(p_.b)[channel]) : A(0); }

  A* partial() const { return static_cast<A*>(p_.partial); }

  const BiasActParams& p_;
  const BiasActTiling& t_;
  const BiasActOptions<T> options_;
  const Compute<T> compute_;
  bool streams_;
  alignas(cache_line) A biases_[bias_act_most_columns];
  alignas(cache_line) A sums_[bias_act_most_columns];
};

template <class T>
void sum(const BiasActParams& p, const BiasActTiling& t) {
  const Acc<T>* partial = static_cast<const Acc<T>*>(p.partial);
  T* db = static_cast<T*>(p.db);
  constexpr int64_t block = 256;
  double total[block];
  for (int64_t first = 0; first < p.channels; first += block) {
    const int64_t count = min(block, p.channels - first);
    for (int64_t j = 0; j < count; ++j) total[j] = 0;
    for (int64_t slice = 0; slice < t.slices; ++slice) {
      for (int64_t j = 0; j < count; ++j) total[j] += partial[slice * p.channels + first + j];
    }
    for (int64_t j = 0; j < count; ++j) store(db[first + j], Acc<T>(total[j]));
  }
}

}  // namespace

template <>
void bias_act_cpu<Isa::PYGAN_ISA>(const BiasActParams& p, const BiasActTiling& t, int64_t begin, int64_t end) {
  dispatch(p.dtype, [&](auto* element) {
    Loops<std::remove_pointer_t<decltype(element)>>(p, t).run(begin, end);
  });
}

template <>
void bias_act_sum_cpu<Isa::PYGAN_ISA>(const BiasActParams& p, const BiasActTiling& t) {
  dispatch(p.dtype, [&](auto* element) { sum<std::remove_pointer_t<decltype(element)>>(p, t); });
}

}  // namespace pygan

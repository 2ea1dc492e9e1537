// CPU loops of upfirdn2d. Compiled once per instruction set, which PYGAN_ISA names.
//
// Rows of the output are made in two passes. The vertical one combines input rows into rows of sums that have room for
// the padding, so the horizontal one meets no borders. Of contiguous planes a whole block of rows takes one pass before
// the next: a load that overlaps two recent stores would have to wait for both.
#include <new>
#include <type_traits>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "upfirdn2d/upfirdn2d.h"

namespace pygan {
namespace {

constexpr int64_t block_bytes = 1 << 14;      // of sums between the passes: they stay in the first-level cache
constexpr int64_t streamed_bytes = 24 << 20;  // outputs at least this large are not worth keeping in a cache
constexpr int64_t cache_line = 64;
constexpr int max_group = 4;  // terms that are added in one loop

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// Calls fn(number of terms, whether to add to what is there, first term) for groups of terms, both as types.
template <class F>
inline __attribute__((always_inline)) void in_groups(int64_t count, bool add, F&& fn) {
  const auto with_add = [&](auto terms, int64_t first) __attribute__((always_inline)) {
    add ? fn(terms, std::true_type(), first) : fn(terms, std::false_type(), first);
  };
  for (int64_t first = 0; first < count; first += max_group, add = true) {
    switch (smaller(count - first, max_group)) {
      case 1: with_add(std::integral_constant<int, 1>(), first); break;
      case 2: with_add(std::integral_constant<int, 2>(), first); break;
      case 3: with_add(std::integral_constant<int, 3>(), first); break;
      default: with_add(std::integral_constant<int, 4>(), first);
    }
  }
}

// y[j] = sum over k of f[k] * x[j * stride + k * step]
template <int stride, class T, class A>
inline __attribute__((always_inline)) void fir(A* __restrict y, const T* __restrict x, int64_t step,
                                               const A* __restrict f, int64_t taps, int64_t n, bool add) {
  if (taps == 0 && !add) {
    for (int64_t j = 0; j < n; ++j) y[j] = 0;
  }
  in_groups(taps, add, [&](auto terms, auto add, int64_t first) __attribute__((always_inline)) {
    constexpr int count = decltype(terms)::value;
    A factor[count];
    for (int k = 0; k < count; ++k) factor[k] = f[first + k];
    const T* __restrict from = x + first * step;
    for (int64_t j = 0; j < n; ++j) {
      A sum = factor[0] * load(from[j * stride]);
#pragma GCC unroll 4
      for (int k = 1; k < count; ++k) sum += factor[k] * load(from[j * stride + k * step]);
      y[j] = decltype(add)::value ? y[j] + sum : sum;
    }
  });
}

// Copies past the caches, where the processor can.
inline void stream(void* to, const void* from, int64_t bytes) {
  char* y = static_cast<char*>(to);
  const char* x = static_cast<const char*>(from);
#ifdef __SSE2__
  const int64_t head = smaller(-reinterpret_cast<intptr_t>(y) & (cache_line - 1), bytes);
  __builtin_memcpy(y, x, head);
  int64_t i = head;
  for (; i + cache_line <= bytes; i += cache_line) {
#ifdef __AVX512F__
    _mm512_stream_si512(reinterpret_cast<__m512i*>(y + i), _mm512_loadu_si512(x + i));
#else
    for (int64_t j = i; j < i + cache_line; j += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(y + j), _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + j)));
    }
#endif
  }
  __builtin_memcpy(y + i, x + i, bytes - i);
#else
  __builtin_memcpy(y, x, bytes);
#endif
}

// Memory for `count` elements, aligned to a cache line, all zero.
template <class U>
class Buffer {
 public:
  explicit Buffer(int64_t count) : data_(static_cast<U*>(::operator new(count * sizeof(U), alignment))) {
    __builtin_memset(data_, 0, count * sizeof(U));
  }
  ~Buffer() { ::operator delete(data_, alignment); }
  Buffer(const Buffer&) = delete;
  operator U*() const { return data_; }

 private:
  static constexpr std::align_val_t alignment{cache_line};
  U* data_;
};

// The taps of one axis in the order in which its phases use them.
template <class A>
class PhasedTaps {
 public:
  PhasedTaps(const UpfirdnAxis& axis, int64_t filters)
      : up_(axis.up), taps_(axis.taps), pitch_((axis.taps + axis.up - 1) / axis.up), data_(filters * up_ * pitch_) {}

  void set(int64_t filter, const double* taps) {
    for (int64_t tap = 0; tap < taps_; ++tap) data_[offset(filter, tap % up_) + tap / up_] = A(taps[tap]);
  }

  // Every up-th tap, beginning with `tap` < up.
  const A* from(int64_t filter, int64_t tap) const { return data_ + offset(filter, tap); }

 private:
  int64_t offset(int64_t filter, int64_t tap) const { return (filter * up_ + tap) * pitch_; }

  const int64_t up_, taps_, pitch_;
  const Buffer<A> data_;
};

// Sizes of the buffers. "Wide" rows of one-element pixels are filtered as one long row, gaps included, which pays where
// rows are short; where the factors forbid it, and where pixels are vectors, each pixel is filtered on its own.
struct Plan {
  Plan(const Upfirdn2dParams& p, int64_t element_size) {
    const UpfirdnAxis& axis = p.across;
    // A phase without taps reads no column, but its outputs take their places among those of the other.
    const UpfirdnTerms left = terms_of(axis, 0), right = terms_of(axis, axis.out - 1);
    pixel = p.channels_last ? p.channels : 1;
    wide = pixel == 1 && axis.up * axis.down <= 2;
    first = left.sample;
    columns = larger(right.sample + right.count - first, (axis.out + axis.up - 1) / axis.up);
    pitch = round_up(columns * pixel, columns * pixel < 8 * cache_line ? 2 : cache_line);
    rows = larger(1, block_bytes / (pitch * element_size));
    filtered = wide ? rows * pitch * axis.up / axis.down : rows * axis.out * pixel;
  }

  int64_t pixel;       // elements of a pixel: the channels, or 1
  bool wide;
  int64_t first;       // input column where rows of sums begin; below 0 in the padding
  int64_t columns;     // of a row of sums
  int64_t pitch;       // elements from one row of sums to the next
  int64_t rows;        // of a block
  int64_t filtered;    // elements that the horizontal pass makes of a block
};

template <class T>
class Rows {
  using A = Acc<T>;

 public:
  Rows(const Upfirdn2dParams& p, const HostFilter& f)
      : p_(p),
        plan_(p, sizeof(A)),
        separable_(!f.both),
        streams_(p.batch * p.channels * p.across.out * p.along.out * int64_t(sizeof(T)) >= streamed_bytes),
        across_(p.across, separable_ ? 1 : p.along.taps),
        along_(p.along, 1),
        columns_(p.across.out),
        rows_(p.along.out),
        sums_(plan_.rows * plan_.pitch + p.across.taps + 1),
        filtered_(plan_.filtered),
        line_(streams_ ? plan_.rows * row_elements() : 0) {
    if (separable_) {
      across_.set(0, f.across);
      along_.set(0, f.along);
    } else {
      for (int64_t row = 0; row < p.along.taps; ++row) across_.set(row, f.both + row * p.across.taps);
    }
    for (int64_t i = 0; i < p.across.out; ++i) {
      columns_[i] = terms_of(p.across, i);
      columns_[i].sample -= plan_.first;
    }
    for (int64_t i = 0; i < p.along.out; ++i) rows_[i] = terms_of(p.along, i);
  }

  void run(int64_t begin, int64_t end) {
    T* const y = static_cast<T*>(p_.y);
    for (int64_t row = begin; row < end; row += plan_.rows) {
      const int64_t rows = smaller(plan_.rows, end - row);
      T* const to = streams_ ? line_ : y + row * row_elements();
      separable_ ? separable(to, row, rows) : direct(to, row, rows);
      if (streams_) stream(y + row * row_elements(), to, rows * row_elements() * int64_t(sizeof(T)));
    }
#ifdef __SSE2__
    if (streams_) _mm_sfence();
#endif
  }

 private:
  int64_t row_elements() const { return p_.across.out * plan_.pixel; }
  // Where the horizontal pass writes: rows of pixels need no rounding if they are of the output's type.
  A* filtered(T* to) const {
    if constexpr (std::is_same_v<T, A>) {
      if (!plan_.wide) return to;
    }
    return filtered_;
  }

  void separable(T* to, int64_t row, int64_t rows) {
    int64_t image = row / p_.along.out, out = row % p_.along.out;
    for (int64_t i = 0; i < rows; ++i) {
      const UpfirdnTerms terms = rows_[out];
      vertical(sums_ + i * plan_.pitch, image, terms, along_.from(0, terms.tap));
      if (++out == p_.along.out) out = 0, ++image;
    }
    horizontal(filtered(to), 0, rows, false);
    finish(to, filtered(to), rows);
  }

  // One row at a time, as the horizontal taps differ from one row to the next.
  void direct(T* to, int64_t row, int64_t rows) {
    constexpr A one = 1;
    for (int64_t i = 0; i < rows; ++i, to += row_elements()) {
      const int64_t image = (row + i) / p_.along.out;
      const UpfirdnTerms terms = rows_[(row + i) % p_.along.out];
      if (terms.count == 0) {
        vertical(sums_, image, terms, &one);
        horizontal(filtered(to), 0, 1, false);
      }
      for (int64_t j = 0; j < terms.count; ++j) {
        const int64_t tap = terms.tap + j * p_.along.up;
        vertical(sums_, image, {terms.sample + j, tap, 1}, &one);
        horizontal(filtered(to), tap, 1, j > 0);
      }
      finish(to, filtered(to), 1);
    }
  }

  // Adds input rows up to a row of sums; zero where all of them are padding.
  void vertical(A* sums, int64_t image, const UpfirdnTerms& terms, const A* taps) {
    const int64_t left = larger(plan_.first, 0), right = smaller(plan_.first + plan_.columns, p_.across.in);
    if (left >= right) return;  // nothing but padding: the sums were zero from the start
    const int64_t top = larger(terms.sample, 0), bottom = smaller(terms.sample + terms.count, p_.along.in);
    const int64_t width = p_.across.in * plan_.pixel;
    const T* const x = static_cast<const T*>(p_.x) + (image * p_.along.in + top) * width + left * plan_.pixel;
    fir<1>(sums + (left - plan_.first) * plan_.pixel, x, width, taps + (top - terms.sample), larger(bottom - top, 0),
           (right - left) * plan_.pixel, false);
  }

  // Filters rows of sums with one row of the filter.
  void horizontal(A* to, int64_t filter, int64_t rows, bool add) {
    const A* sums = sums_;
    const int64_t up = p_.across.up, down = p_.across.down, taps = p_.across.taps;
    const int64_t pixel = plan_.pixel, pitch = plan_.pitch;
    if (plan_.wide && down == 2) {
      fir<2>(to, sums, 1, across_.from(filter, 0), taps, rows * pitch / 2, add);
    } else if (plan_.wide) {
      for (int64_t i = 0; i < smaller(up, p_.across.out); ++i) {
        const UpfirdnTerms& column = columns_[i];
        fir<1>(to + i * plan_.rows * pitch, sums + column.sample, 1, across_.from(filter, column.tap), column.count,
               rows * pitch, add);
      }
    } else if (up == 1 && down == 1) {
      for (int64_t row = 0; row < rows; ++row, to += row_elements(), sums += pitch) {
        fir<1>(to, sums, pixel, across_.from(filter, 0), taps, row_elements(), add);
      }
    } else {
      for (int64_t row = 0; row < rows; ++row, sums += pitch) {
        for (int64_t i = 0; i < p_.across.out; ++i, to += pixel) {
          const UpfirdnTerms& column = columns_[i];
          fir<1>(to, sums + column.sample * pixel, pixel, across_.from(filter, column.tap), column.count, pixel, add);
        }
      }
    }
  }

  // Rounds what the horizontal pass made, and puts the two phases of wide rows in turn.
  void finish(T* __restrict to, const A* __restrict from, int64_t rows) {
    const int64_t width = row_elements();
    if (!plan_.wide) {
      if constexpr (!std::is_same_v<T, A>) {
        for (int64_t i = 0; i < rows * width; ++i) store(to[i], from[i]);
      }
      return;
    }
    const A* __restrict odd = from + plan_.rows * plan_.pitch;
    const int64_t pitch = plan_.pitch / p_.across.down;
    for (int64_t row = 0; row < rows; ++row, to += width, from += pitch, odd += pitch) {
      if (p_.across.up == 1) {
        for (int64_t i = 0; i < width; ++i) store(to[i], from[i]);
      } else {
        for (int64_t i = 0; i < width / 2; ++i) {
          store(to[2 * i], from[i]);
          store(to[2 * i + 1], odd[i]);
        }
        if (width % 2 == 1) store(to[width - 1], from[width / 2]);
      }
    }
  }

  const Upfirdn2dParams& p_;
  const Plan plan_;
  const bool separable_;
  const bool streams_;
  PhasedTaps<A> across_;                // one filter, or one per row of a filter that is not separable
  PhasedTaps<A> along_;                 // unused if not separable
  const Buffer<UpfirdnTerms> columns_;  // of each output column, samples counted from the first of a row of sums
  const Buffer<UpfirdnTerms> rows_;     // of each output row
  const Buffer<A> sums_;                // [rows, pitch], and room for what filtering gaps reads beyond
  const Buffer<A> filtered_;            // [rows, pixels]; wide: [phases, rows, pitch]
  const Buffer<T> line_;                // [rows, pixels], as the output has it
};

}  // namespace

template <>
void upfirdn2d_cpu<Isa::PYGAN_ISA>(const Upfirdn2dParams& p, const HostFilter& f, int64_t begin, int64_t end) {
  dispatch(p.dtype, [&](auto* element) { Rows<std::remove_pointer_t<decltype(element)>>(p, f).run(begin, end); });
}

}  // namespace pygan

// CUDA kernels of upfirdn2d: tiles of the input go through shared memory, so each sample is read once per tile.
//
// The filter is not factored as on the CPU, which would mean to wait for it: 4 x 4 taps lie in registers, and other
// filters that come as a matrix are applied as one.
#include <type_traits>

#include "common/cuda.cuh"
#include "upfirdn2d/upfirdn2d.h"

namespace pygan {
namespace {

constexpr int threads = 256;
constexpr int warp = 32;
constexpr int sector_bytes = 32;  // the unit of memory traffic

PYGAN_HD int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Tap `row`, `column` as correlation uses it.
template <class A>
__device__ A tap_of(const Upfirdn2dParams& p, const DeviceFilter& f, int64_t row, int64_t column) {
  const int64_t rows = p.along.taps, columns = p.across.taps;
  const int64_t y = f.flip ? row : rows - 1 - row, x = f.flip ? column : columns - 1 - column;
  return A(f.taps[y * columns + x]);
}

// The same of one axis of a separable filter.
template <class A>
__device__ A tap_of(const Upfirdn2dParams& p, const DeviceFilter& f, int64_t tap) {
  return f.taps ? A(f.taps[f.flip ? tap : p.across.taps - 1 - tap]) : A(1);
}

// Filters of 4 x 4 taps, the same factors along both axes: what a block and a thread of it compute.
template <int up, int down, bool channels_last>
struct Tile {
  static constexpr int taps = 4;
  // Input samples under `outputs` output samples, of which the first begins with tap 0 on a sample.
  static constexpr int reach(int outputs) { return outputs * down / up + (up == down ? 3 : 2); }

  static constexpr int lanes = channels_last ? warp : 1;  // channels
  static constexpr int out_x = channels_last ? (down == 2 ? 8 : 16) : 64;
  static constexpr int out_y = channels_last ? (up == 2 ? 16 : down == 2 ? 4 : 8) : 32;
  static constexpr int in_x = reach(out_x), in_y = reach(out_y);
  // A thread computes patches of up x 4 output pixels.
  static constexpr int patch_y = 4;
  static constexpr int patches_x = out_x / up, patches = patches_x * (out_y / patch_y);
  static constexpr int patch_in_x = reach(up), patch_in_y = reach(patch_y);
  // Elements that are read at once: 16 bytes of float, and 16 bytes of shared memory for all.
  static constexpr int vector = 4;
  // Rows of a plane begin at a multiple of `vector`, up to vector - 1 columns before the first that is needed. With
  // down = 2 the even columns come first, so that neighboring threads read neighboring words.
  static constexpr int half = (in_x + 2 * (vector - 1)) / vector * vector / 2;
  static constexpr int pitch = channels_last ? in_x * lanes : 2 * half;
  static constexpr size_t shared_bytes = sizeof(float) * (taps * taps + in_y * pitch);

  static PYGAN_HD int place(int column) { return down == 2 ? column % 2 * half + column / 2 : column; }
};

// How tiles cover the output.
struct TileGrid {
  int64_t across, along;   // tiles of a picture
  int64_t channel_blocks;  // of a picture; 1 for planes
  int64_t tiles;           // of all
  int first_x, first_y;    // output sample where the first tile begins: -1 if up is 2 and the padding odd, else 0
  int shift;               // columns of a tile of a plane before the first that is needed
  bool vectors;            // rows (channels_last: pixels) can be read by vectors
  bool pairs;              // both phases of up = 2 can be written at once
};

// Where a tile begins. Divisions of 64-bit numbers are slow; this has all of them.
struct TilePosition {
  int64_t image;  // plane or picture
  int channel;
  int out_x, out_y;
  int in_x, in_y;
};

template <int up, int down, bool channels_last>
__device__ TilePosition position_of(int64_t tile, const Upfirdn2dParams& p, const TileGrid& g) {
  using Shape = Tile<up, down, channels_last>;
  const int64_t block = tile / g.channel_blocks, row = block / g.across;
  TilePosition at;
  at.channel = int(tile - block * g.channel_blocks) * Shape::lanes;
  at.image = row / g.along;
  at.out_x = int(block - row * g.across) * Shape::out_x + g.first_x;
  at.out_y = int(row - at.image * g.along) * Shape::out_y + g.first_y;
  at.in_x = int(floor_div(at.out_x * down - p.across.pad, up));
  at.in_y = int(floor_div(at.out_y * down - p.along.pad, up));
  return at;
}

// Reads the input of a tile of a plane; zero where it lies in the padding. A warp reads a row.
template <class T, class Shape, int down, int vector>
__device__ void load_plane(float* tile, const Upfirdn2dParams& p, const TilePosition& at, int shift) {
  for (int row = int(threadIdx.x) / warp; row < Shape::in_y; row += threads / warp) {
    const int y = at.in_y + row;
    const T* x = static_cast<const T*>(p.x) + (at.image * p.along.in + y) * p.across.in;
    const bool inside = 0 <= y && y < p.along.in;
    // A request that ends within a sector leaves the rest of it to another.
    const int skew = vector == 1 ? int((y * p.across.in + at.in_x) & (sector_bytes / sizeof(T) - 1)) : 0;
    for (int column = int(threadIdx.x) % warp * vector - skew; column < Shape::in_x + shift; column += warp * vector) {
      if (column < 0) continue;
      const int first = at.in_x - shift + column;
      Vector<T, vector> from;
      const bool there = inside && 0 <= first && first < p.across.in;
      if (there) from = *reinterpret_cast<const Vector<T, vector>*>(x + first);
      Vector<float, vector> values;
#pragma unroll
      for (int i = 0; i < vector; ++i) values.element[i] = there ? load(from.element[i]) : 0.f;
      float* const to = tile + row * Shape::pitch + Shape::place(column);
      if constexpr (vector == 1 || down == 1) {
        *reinterpret_cast<Vector<float, vector>*>(to) = values;
      } else {
        Vector<float, vector / 2> even, odd;
#pragma unroll
        for (int i = 0; i < vector / 2; ++i) {
          even.element[i] = values.element[2 * i];
          odd.element[i] = values.element[2 * i + 1];
        }
        *reinterpret_cast<Vector<float, vector / 2>*>(to) = even;
        *reinterpret_cast<Vector<float, vector / 2>*>(to + Shape::half) = odd;
      }
    }
  }
}

// The same of a tile of pixels: neighboring threads read neighboring channels.
template <class T, class Shape, int vector>
__device__ void load_pixels(float* tile, const Upfirdn2dParams& p, const TilePosition& at) {
  constexpr int vectors = Shape::lanes / vector;
#pragma unroll 2
  for (int i = threadIdx.x; i < Shape::in_y * Shape::in_x * vectors; i += threads) {
    const int pixel = i / vectors;
    const int y = at.in_y + pixel / Shape::in_x, x = at.in_x + pixel % Shape::in_x;
    const int channel = at.channel + i % vectors * vector;
    Vector<T, vector> from;
    const bool there = 0 <= y && y < p.along.in && 0 <= x && x < p.across.in && channel < p.channels;
    if (there) {
      const int64_t offset = ((at.image * p.along.in + y) * p.across.in + x) * p.channels + channel;
      from = *reinterpret_cast<const Vector<T, vector>*>(static_cast<const T*>(p.x) + offset);
    }
    Vector<float, vector> values;
#pragma unroll
    for (int j = 0; j < vector; ++j) values.element[j] = there ? load(from.element[j]) : 0.f;
    *reinterpret_cast<Vector<float, vector>*>(tile + i * vector) = values;
  }
}

// Writes a patch, as far as it lies in the output.
template <class T, class Shape, int up>
__device__ void store_patch(const float (&sums)[Shape::patch_y][up], const Upfirdn2dParams& p, bool pairs,
                            int64_t image, int channel, int x, int y) {
  constexpr bool planes = Shape::lanes == 1;
  const int64_t channels = planes ? 1 : p.channels;
  if (channel >= channels) return;
  const int64_t row_elements = p.across.out * channels;
  T* to = static_cast<T*>(p.y) + (image * p.along.out + y) * row_elements + x * channels + channel;
#pragma unroll
  for (int row = 0; row < Shape::patch_y; ++row, to += row_elements) {
    if (y + row < 0 || y + row >= p.along.out) continue;
    if (planes && up == 2 && pairs) {
      if (x >= p.across.out) continue;
      Vector<T, up> pair;
#pragma unroll
      for (int i = 0; i < up; ++i) store(pair.element[i], sums[row][i]);
      *reinterpret_cast<Vector<T, up>*>(to) = pair;
    } else {
#pragma unroll
      for (int i = 0; i < up; ++i) {
        if (x + i >= 0 && x + i < p.across.out) store(to[i * channels], sums[row][i]);
      }
    }
  }
}

template <class T, int up, int down, bool channels_last>
__global__ void __launch_bounds__(threads, 4) tile_kernel(Upfirdn2dParams p, DeviceFilter f, TileGrid g) {
  using Shape = Tile<up, down, channels_last>;
  PYGAN_DYNAMIC_SHARED(float, shared);
  float* const tile = shared + Shape::taps * Shape::taps;
  const int lane = threadIdx.x % warp;

  if (threadIdx.x < Shape::taps * Shape::taps) {
    const int row = threadIdx.x / Shape::taps, column = threadIdx.x % Shape::taps;
    const float tap = f.separable ? tap_of<float>(p, f, row) * tap_of<float>(p, f, column)
                                  : tap_of<float>(p, f, row, column);
    shared[threadIdx.x] = tap * float(f.gain);
  }
  int columns[Shape::patch_in_x];  // where those of a patch lie
#pragma unroll
  for (int i = 0; i < Shape::patch_in_x; ++i) columns[i] = channels_last ? i * warp : Shape::place(g.shift + i);

  for (int64_t index = blockIdx.x; index < g.tiles; index += gridDim.x) {
    const TilePosition at = position_of<up, down, channels_last>(index, p, g);
    if constexpr (channels_last) {
      g.vectors ? load_pixels<T, Shape, Shape::vector>(tile, p, at) : load_pixels<T, Shape, 1>(tile, p, at);
    } else {
      g.vectors ? load_plane<T, Shape, down, Shape::vector>(tile, p, at, g.shift)
                : load_plane<T, Shape, down, 1>(tile, p, at, g.shift);
    }
    __syncthreads();
    float taps[Shape::taps][Shape::taps];  // only now, to leave the registers to the loads before
#pragma unroll
    for (int i = 0; i < Shape::taps * Shape::taps; ++i) taps[i / Shape::taps][i % Shape::taps] = shared[i];
    // In planes the threads of a warp have neighboring patches, in pixels the same one of neighboring channels.
#pragma unroll 1
    for (int patch = channels_last ? threadIdx.x / warp : threadIdx.x; patch < Shape::patches;
         patch += channels_last ? threads / warp : threads) {
      const int patch_x = patch % Shape::patches_x, patch_y = patch / Shape::patches_x;
      const float* const from = tile + patch_y * (Shape::patch_y * down / up) * Shape::pitch +
                                patch_x * (channels_last ? down * warp : 1) + (channels_last ? lane : 0);
      float sums[Shape::patch_y][up] = {};
#pragma unroll
      for (int y = 0; y < Shape::patch_in_y; ++y) {
#pragma unroll
        for (int x = 0; x < Shape::patch_in_x; ++x) {
          const float value = from[y * Shape::pitch + columns[x]];
#pragma unroll
          for (int row = 0; row < Shape::patch_y; ++row) {
            const int tap_y = y * up - row * down;
            if (tap_y < 0 || tap_y >= Shape::taps) continue;
#pragma unroll
            for (int column = 0; column < up; ++column) {
              const int tap_x = x * up - column * down;
              if (tap_x >= 0 && tap_x < Shape::taps) sums[row][column] += value * taps[tap_y][tap_x];
            }
          }
        }
      }
      store_patch<T, Shape, up>(sums, p, g.pairs, at.image, at.channel + (channels_last ? lane : 0),
                                at.out_x + patch_x * up, at.out_y + patch_y * Shape::patch_y);
    }
    __syncthreads();  // all have read the tile
  }
}

template <class T, int up, int down, bool channels_last>
void run_tiles(const Upfirdn2dParams& p, const DeviceFilter& f, void* stream) {
  using Shape = Tile<up, down, channels_last>;
  TileGrid g;
  g.first_x = up == 2 && p.across.pad % 2 != 0 ? -1 : 0;
  g.first_y = up == 2 && p.along.pad % 2 != 0 ? -1 : 0;
  g.across = ceil_div(p.across.out - g.first_x, Shape::out_x);
  g.along = ceil_div(p.along.out - g.first_y, Shape::out_y);
  g.channel_blocks = channels_last ? ceil_div(p.channels, Shape::lanes) : 1;
  g.tiles = g.across * g.along * g.channel_blocks * (channels_last ? p.batch : p.batch * p.channels);
  g.vectors = (channels_last ? p.channels : p.across.in) % Shape::vector == 0 &&
              is_aligned(p.x, sizeof(T) * Shape::vector);
  const int64_t first = floor_div(g.first_x * down - p.across.pad, up);
  g.shift = g.vectors && !channels_last ? int(first - floor_div(first, Shape::vector) * Shape::vector) : 0;
  g.pairs = !channels_last && g.first_x == 0 && p.across.out % 2 == 0 && is_aligned(p.y, sizeof(T) * 2);
  launch(tile_kernel<T, up, down, channels_last>, dim3(unsigned(smaller(g.tiles, p.max_blocks))), dim3(threads),
         Shape::shared_bytes, stream, p, f, g);
}

template <class T, int up, int down>
void run_tiles(const Upfirdn2dParams& p, const DeviceFilter& f, void* stream) {
  p.channels_last ? run_tiles<T, up, down, true>(p, f, stream) : run_tiles<T, up, down, false>(p, f, stream);
}

// Any factors and filters: how a block's shared memory is laid out.
struct GeneralTile {
  int lanes;         // channels; 1 for planes
  int out_x, out_y;  // pixels
  int in_x, in_y;    // room for the input under them
  int taps;          // of the filter, or of one axis if separable
  int sums;          // elements between the two passes of a separable filter
  int64_t across, along, channel_blocks, tiles;

  PYGAN_HD int inputs() const { return in_x * in_y * lanes; }
};

// The terms of an output sample, counted within a tile.
struct TileTerms {
  int sample, tap, count;
};

__device__ TileTerms tile_terms(const UpfirdnAxis& axis, int64_t out, int64_t first_in) {
  const UpfirdnTerms terms = terms_of(axis, out);
  return {int(terms.sample - first_in), int(terms.tap), int(terms.count)};
}

template <class T>
__global__ void __launch_bounds__(threads, 4) general_kernel(Upfirdn2dParams p, DeviceFilter f, GeneralTile g) {
  using A = Acc<T>;
  PYGAN_DYNAMIC_SHARED(A, taps);
  A* const tile = taps + g.taps;      // [in_y, in_x, lanes]
  A* const sums = tile + g.inputs();  // [out_y, in_x, lanes]
  TileTerms* const columns = reinterpret_cast<TileTerms*>(sums + g.sums);
  TileTerms* const rows = columns + g.out_x;
  const int64_t channels = p.channels_last ? p.channels : 1;
  const int row_inputs = g.in_x * g.lanes, row_outputs = g.out_x * g.lanes;
  const int taps_x = int(p.across.taps), up_x = int(p.across.up), up_y = int(p.along.up);

  for (int i = threadIdx.x; i < g.taps; i += threads) {
    taps[i] = f.separable ? tap_of<A>(p, f, i) : tap_of<A>(p, f, i / taps_x, i % taps_x);
  }
  for (int64_t index = blockIdx.x; index < g.tiles; index += gridDim.x) {
    const int64_t block = index / g.channel_blocks, row = block / g.across, image = row / g.along;
    const int64_t first_channel = (index - block * g.channel_blocks) * g.lanes;
    const int64_t out_x = (block - row * g.across) * g.out_x, out_y = (row - image * g.along) * g.out_y;
    const int64_t in_x = terms_of(p.across, out_x).sample, in_y = terms_of(p.along, out_y).sample;

    const T* const x = static_cast<const T*>(p.x) + image * p.along.in * p.across.in * channels + first_channel;
    for (int i = int(threadIdx.x) / warp; i < g.in_y; i += threads / warp) {
      const int64_t at_y = in_y + i;
      const int skew = channels == 1 ? int((at_y * p.across.in + in_x) & (sector_bytes / sizeof(T) - 1)) : 0;
      for (int j = int(threadIdx.x) % warp - skew; j < row_inputs; j += warp) {
        if (j < 0) continue;
        const int lane = j % g.lanes;
        const int64_t at_x = in_x + j / g.lanes;
        const bool inside = 0 <= at_y && at_y < p.along.in && 0 <= at_x && at_x < p.across.in;
        const bool there = inside && first_channel + lane < channels;
        tile[i * row_inputs + j] = there ? A(load(x[(at_y * p.across.in + at_x) * channels + lane])) : A(0);
      }
    }
    for (int i = threadIdx.x; i < g.out_x; i += threads) columns[i] = tile_terms(p.across, out_x + i, in_x);
    for (int i = threadIdx.x; i < g.out_y; i += threads) rows[i] = tile_terms(p.along, out_y + i, in_y);
    __syncthreads();

    if (f.separable) {
      for (int i = threadIdx.x; i < g.sums; i += threads) {
        const TileTerms terms = rows[i / row_inputs];
        const A* from = tile + terms.sample * row_inputs + i % row_inputs;
        A sum = 0;
        for (int j = 0; j < terms.count; ++j) sum += from[j * row_inputs] * taps[terms.tap + j * up_y];
        sums[i] = sum;
      }
      __syncthreads();
    }

    T* const y = static_cast<T*>(p.y) + image * p.along.out * p.across.out * channels + first_channel;
    for (int i = threadIdx.x; i < g.out_y * row_outputs; i += threads) {
      const int at_y = i / row_outputs, at_x = i % row_outputs / g.lanes, lane = i % g.lanes;
      const TileTerms column = columns[at_x];
      TileTerms terms = {at_y, 0, 1};  // of the sums
      if (!f.separable) terms = rows[at_y];
      const A* from = (f.separable ? sums : tile) + terms.sample * row_inputs + column.sample * g.lanes + lane;
      A sum = 0;
      for (int j = 0; j < terms.count; ++j, from += row_inputs) {
        const A* const row_taps = taps + (terms.tap + j * up_y) * taps_x + column.tap;
        for (int k = 0; k < column.count; ++k) sum += from[k * g.lanes] * row_taps[k * up_x];
      }
      const bool inside = out_y + at_y < p.along.out && out_x + at_x < p.across.out;
      if (inside && first_channel + lane < channels) {
        store(y[((out_y + at_y) * p.across.out + out_x + at_x) * channels + lane], sum * A(f.gain));
      }
    }
    __syncthreads();  // all have read the tile
  }
}

// Input samples that lie under `outputs` output samples, at most.
int reach(const UpfirdnAxis& axis, int outputs) {
  return int(((outputs - 1) * axis.down + axis.taps - 1) / axis.up + 1);
}

template <class T>
void run_general(const Upfirdn2dParams& p, const DeviceFilter& f, void* stream) {
  using A = Acc<T>;
  constexpr size_t wanted_bytes = 40 << 10, available_bytes = 160 << 10;
  GeneralTile g;
  g.taps = int(f.separable ? p.across.taps : p.across.taps * p.along.taps);
  g.lanes = p.channels_last ? sector_bytes / int(sizeof(T)) : 1;
  g.out_x = p.channels_last ? 16 : 64;
  g.out_y = p.channels_last ? 16 : 32;
  size_t bytes;
  while (true) {
    g.in_x = reach(p.across, g.out_x);
    g.in_y = reach(p.along, g.out_y);
    g.sums = f.separable ? g.out_y * g.in_x * g.lanes : 0;
    bytes = sizeof(A) * (size_t(g.taps) + g.in_x * g.in_y * g.lanes + g.sums) + sizeof(TileTerms) * (g.out_x + g.out_y);
    if (bytes <= wanted_bytes || g.out_x * g.out_y * g.lanes == 1) break;
    int& largest = g.out_y >= g.out_x && g.out_y > 1 ? g.out_y : g.out_x > 1 ? g.out_x : g.lanes;
    largest /= 2;
  }
  if (bytes > available_bytes) throw std::invalid_argument("upfirdn2d: the filter is too large for shared memory");
  g.across = ceil_div(p.across.out, g.out_x);
  g.along = ceil_div(p.along.out, g.out_y);
  g.channel_blocks = p.channels_last ? ceil_div(p.channels, g.lanes) : 1;
  g.tiles = g.across * g.along * g.channel_blocks * (p.channels_last ? p.batch : p.batch * p.channels);
  launch(general_kernel<T>, dim3(unsigned(smaller(g.tiles, p.max_blocks))), dim3(threads), bytes, stream, p, f, g);
}

bool fits_tiles(const Upfirdn2dParams& p, const DeviceFilter& f) {
  const int64_t up = p.across.up, down = p.across.down;
  return p.across.taps == 4 && p.along.taps == 4 && f.taps && up == p.along.up && down == p.along.down &&
         up * down <= 2;
}

template <class T>
void run(const Upfirdn2dParams& p, const DeviceFilter& f, void* stream) {
  if constexpr (!std::is_same_v<T, double>) {
    if (fits_tiles(p, f)) {
      return p.across.up == 2     ? run_tiles<T, 2, 1>(p, f, stream)
             : p.across.down == 2 ? run_tiles<T, 1, 2>(p, f, stream)
                                  : run_tiles<T, 1, 1>(p, f, stream);
    }
  }
  run_general<T>(p, f, stream);
}

}  // namespace

void upfirdn2d_cuda(const Upfirdn2dParams& p, const DeviceFilter& f, void* stream) {
  dispatch(p.dtype, [&](auto* element) { run<std::remove_pointer_t<decltype(element)>>(p, f, stream); });
}

}  // namespace pygan

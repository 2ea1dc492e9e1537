// upfirdn2d as a torch operator: schema, checks, factoring of the filter and threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "common/tensor.h"
#include "upfirdn2d/upfirdn2d.h"

namespace pygan {
namespace {

constexpr int64_t elements_per_thread = 1 << 15;
constexpr int64_t max_side = std::numeric_limits<int32_t>::max();  // within a tile CUDA kernels count in 32 bits
constexpr float identity[] = {1};

// The taps of `f` in double, reversed unless `flip`, as the CPU kernels take them.
class FactoredFilter {
 public:
  FactoredFilter(const float* f, int64_t rows, int64_t columns, bool separable, bool flip, double gain,
                 double tolerance) {
    std::vector<double> taps(f, f + (separable ? columns : rows * columns));
    if (!flip) std::reverse(taps.begin(), taps.end());
    if (separable) {
      across_ = along_ = taps;
    } else if (!factor(taps, rows, columns, tolerance)) {
      both_ = taps;
    }
    for (double& tap : both_.empty() ? along_ : both_) tap *= gain;
  }

  HostFilter view() const {
    if (!both_.empty()) return {nullptr, nullptr, both_.data()};
    return {across_.data(), along_.data(), nullptr};
  }

 private:
  // Writes the matrix as the product of a column and a row, those of its largest element, if it is one.
  bool factor(const std::vector<double>& taps, int64_t rows, int64_t columns, double tolerance) {
    const auto smaller = [](double a, double b) { return std::fabs(a) < std::fabs(b); };
    const int64_t largest = std::max_element(taps.begin(), taps.end(), smaller) - taps.begin();
    const double pivot = taps[largest];
    if (!std::isfinite(pivot)) return false;
    along_.resize(rows);
    across_.resize(columns);
    for (int64_t i = 0; i < rows; ++i) along_[i] = taps[i * columns + largest % columns];
    for (int64_t j = 0; j < columns; ++j) {
      across_[j] = pivot == 0 ? 0 : taps[largest / columns * columns + j] / pivot;
    }
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        const double difference = taps[i * columns + j] - along_[i] * across_[j];
        if (!(std::fabs(difference) <= tolerance * std::fabs(pivot))) return false;
      }
    }
    return true;
  }

  std::vector<double> across_, along_, both_;
};

Tensor upfirdn2d(Tensor x, std::optional<Tensor> f, int64_t upx, int64_t upy, int64_t downx, int64_t downy,
                 int64_t padx0, int64_t padx1, int64_t pady0, int64_t pady1, bool flip_filter, double gain) {
  const Dtype dtype = dtype_of(x, "upfirdn2d");
  STD_TORCH_CHECK(x.dim() == 4 && x.size(2) > 0 && x.size(3) > 0, "upfirdn2d: x must be [N, C, H, W] with pixels");
  STD_TORCH_CHECK(upx > 0 && upy > 0 && downx > 0 && downy > 0, "upfirdn2d: up and down must be at least 1");
  if (f) {
    STD_TORCH_CHECK((f->dim() == 1 || f->dim() == 2) && f->numel() > 0 && f->scalar_type() == ScalarType::Float,
                    "upfirdn2d: f must be float32 of shape [fh, fw] or [k]");
    STD_TORCH_CHECK(f->device() == x.device(), "upfirdn2d: f and x must be on one device");
    f = torch::stable::contiguous(*f);
  }
  const bool separable = !f || f->dim() == 1;
  const int64_t taps_along = f ? f->size(0) : 1, taps_across = f ? f->size(f->dim() - 1) : 1;
  const int64_t height = x.size(2) * upy + pady0 + pady1, width = x.size(3) * upx + padx0 + padx1;
  STD_TORCH_CHECK(height >= taps_along && width >= taps_across,
                  "upfirdn2d: the padded picture must not be smaller than the filter");
  STD_TORCH_CHECK(height <= max_side && width <= max_side,
                  "upfirdn2d: the padded picture must have fewer than 2^31 pixels a side");

  const UpfirdnAxis across{x.size(3), (width - taps_across) / downx + 1, upx, downx, padx0, taps_across};
  const UpfirdnAxis along{x.size(2), (height - taps_along) / downy + 1, upy, downy, pady0, taps_along};
  const bool channels_last = x.stride(1) == 1 && x.size(1) > 1;
  const auto format = channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                    : torch::headeronly::MemoryFormat::Contiguous;
  Tensor y = torch::stable::empty({x.size(0), x.size(1), along.out, across.out}, x.scalar_type(), std::nullopt,
                                  x.device(), std::nullopt, format);
  if (y.numel() == 0) return y;

  const Tensor dense = torch::stable::contiguous(x, format);
  const Upfirdn2dParams p{dense.const_data_ptr(), y.mutable_data_ptr(), x.size(0), x.size(1), across, along,
                          channels_last,          dtype};
  if (on_cuda(x)) {
    if constexpr (has_cuda_kernels) {
      const OnDeviceOf device(x);
      const float* const taps = f ? static_cast<const float*>(f->const_data_ptr()) : nullptr;
      upfirdn2d_cuda(p, DeviceFilter{taps, separable, flip_filter, gain}, device.stream());
    }
  } else if constexpr (has_cpu_kernels) {
    const float* const taps = f ? static_cast<const float*>(f->const_data_ptr()) : identity;
    const FactoredFilter filter(taps, taps_along, taps_across, separable, flip_filter, gain,
                                dtype == Dtype::f64 ? 1e-15 : 0x1p-22);
    const auto kernel = PYGAN_BEST_ISA(upfirdn2d_cpu);
    const int64_t rows = y.numel() / (channels_last ? across.out * x.size(1) : across.out);
    const int64_t grain = elements_per_thread * rows / y.numel() + 1;
    torch::stable::parallel_for(0, rows, grain,
                                [&](int64_t begin, int64_t end) { kernel(p, filter.view(), begin, end); });
  }
  return y;
}

void kernels(auto& m) { m.impl("upfirdn2d", TORCH_BOX(&upfirdn2d)); }

}  // namespace
}  // namespace pygan

STABLE_TORCH_LIBRARY_FRAGMENT(PYGAN_NAMESPACE, m) {
  m.def(
      "upfirdn2d(Tensor x, Tensor? f, int upx, int upy, int downx, int downy, int padx0, int padx1, int pady0, "
      "int pady1, bool flip_filter, float gain) -> Tensor");
}

PYGAN_REGISTER(pygan::kernels)

// CPU loops of bias_act. Compiled once per instruction set, which PYGAN_ISA names.
#include <type_traits>

#include "bias_act/bias_act.h"

namespace pygan {
namespace {

// The loops run over stretches on which the bias is either one number (contiguous) or a vector that lies beside the
// elements (channels_last), so that the compiler vectorizes them; the activation is fixed at compile time.
template <class T, Activation act, bool gradient>
void run(const BiasActParams& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const T* __restrict x = static_cast<const T*>(p.x);
  const T* __restrict b = static_cast<const T*>(p.b);
  const T* __restrict dy = static_cast<const T*>(p.dy);
  T* __restrict y = static_cast<T*>(p.y);
  const A alpha = A(p.alpha), gain = A(p.gain), clamp = A(p.clamp);
  const int64_t channels = p.channels, inner = p.inner;

  const auto element = [&](int64_t i, A bias) __attribute__((always_inline)) {
    if constexpr (gradient) {
      store(y[i], bias_act_grad_element<act>(load(dy[i]), load(x[i]), bias, alpha, gain, clamp));
    } else {
      store(y[i], bias_act_element<act>(load(x[i]), bias, alpha, gain, clamp));
    }
  };

  if (b && inner == 1) {
    for (int64_t i = begin; i < end;) {
      const int64_t channel = i % channels;
      const int64_t count = end - i < channels - channel ? end - i : channels - channel;
      for (int64_t j = 0; j < count; ++j) element(i + j, load(b[channel + j]));
      i += count;
    }
  } else {
    for (int64_t i = begin; i < end;) {
      const int64_t row = i / inner;
      const int64_t stop = end < (row + 1) * inner ? end : (row + 1) * inner;
      const A bias = b ? load(b[row % channels]) : A(0);
      for (; i < stop; ++i) element(i, bias);
    }
  }
}

template <class T, Activation act>
void run(const BiasActParams& p, int64_t begin, int64_t end) {
  p.dy ? run<T, act, true>(p, begin, end) : run<T, act, false>(p, begin, end);
}

template <class T>
void run(const BiasActParams& p, int64_t begin, int64_t end) {
  switch (p.act) {
    case Activation::linear: return run<T, Activation::linear>(p, begin, end);
    case Activation::relu: return run<T, Activation::relu>(p, begin, end);
    case Activation::lrelu: return run<T, Activation::lrelu>(p, begin, end);
    case Activation::tanh: return run<T, Activation::tanh>(p, begin, end);
    case Activation::sigmoid: return run<T, Activation::sigmoid>(p, begin, end);
    case Activation::elu: return run<T, Activation::elu>(p, begin, end);
    case Activation::selu: return run<T, Activation::selu>(p, begin, end);
    case Activation::softplus: return run<T, Activation::softplus>(p, begin, end);
    case Activation::swish: return run<T, Activation::swish>(p, begin, end);
  }
}

}  // namespace

template <>
void bias_act_cpu<Isa::PYGAN_ISA>(const BiasActParams& p, int64_t begin, int64_t end) {
  dispatch(p.dtype, [&](auto* element) { run<std::remove_pointer_t<decltype(element)>>(p, begin, end); });
}

}  // namespace pygan

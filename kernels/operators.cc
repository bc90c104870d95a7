// SPDX-License-Identifier: Apache-2.0
// What MindSpore calls, by `ops.Custom(..., func_type="aot")`: inputs, then outputs, as float32 in memory. Each returns
// 0; another number ends the graph with an error.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels.h"
#include "threads.h"

namespace {

// The best that this CPU has, or what ACMIX_INSTRUCTIONS names if it has that.
const Kernels& kernels() {
  static const Kernels& chosen = []() -> const Kernels& {
#if defined(__x86_64__)
    const char* name = std::getenv("ACMIX_INSTRUCTIONS");
    const auto is_named = [&](const char* other) { return !name || !*name || !std::strcmp(name, other); };
    __builtin_cpu_init();
    if (is_named("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
      return avx512_kernels;
    if (!(name && !std::strcmp(name, "plain")) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      return avx2_kernels;
#endif
    return plain_kernels;
  }();
  return chosen;
}

struct Call {
  void** params;
  int* ranks;
  int64_t** shapes;

  float* data(int i) const { return static_cast<float*>(params[i]); }
  int size(int i, int axis) const { return static_cast<int>(shapes[i][axis]); }
  const int* numbers(int i) const { return static_cast<const int*>(params[i]); }
  size_t count(int i) const {
    size_t product = 1;
    for (int axis = 0; axis < ranks[i]; ++axis) product *= shapes[i][axis];
    return product;
  }
};

// `numbers` are int32: kernel, stride, dilation, and what else an operator says of itself.
Window window_of(const Call& call, int maps, const int* numbers) {
  return {call.size(maps, 2), call.size(maps, 3), numbers[0], numbers[1], numbers[2]};
}

bool is_possible(const Window& w) { return w.kernel % 2 == 1 && w.stride >= 1 && w.stride <= MOST_STRIDE; }

Attention attention_of(const Call& call) {
  const int channels = call.size(1, 0);
  return {window_of(call, 0, call.numbers(2)), call.size(0, 0), call.size(0, 1) / (3 * channels), channels};
}

// The weight, (d * outputs, maps, k, k), is input 1, or 2 where reduced pieces stand before it, 3 where a layer and its
// bias do. The numbers that follow also say how many pieces there are, and of reduced ones r.
Convolution convolution_of(const Call& call, int weight) {
  const int* numbers = call.numbers(weight + 1);
  Convolution c;
  c.window = window_of(call, 0, numbers);
  c.batch = call.size(0, 0);
  c.pieces = numbers[3];
  c.slots = (call.size(0, 1) + (weight == 2 ? call.size(1, 1) : 0)) / c.pieces;
  c.outputs = call.size(weight, 0) / c.slots;
  c.maps = call.size(weight, 1);
  c.has_layer = weight == 3;
  c.whole = call.size(0, 1) / c.slots;
  c.reduction = weight == 2 ? numbers[4] : 1;
  return c;
}

Sum sum_of(const Call& call) { return {*call.data(0), *call.data(2), call.count(1)}; }

template <typename Shape, typename Scratch, typename Work>
int run(const Shape& shape, int units, Scratch size, bool has_gradient, const Work& work) {
  if (!is_possible(shape.window)) return 1;
  const size_t floats = size(shape, has_gradient);
  for_each_unit(units, [&](int unit) { work(unit, scratch(floats)); });
  return 0;
}

int convolve(const Call& call, int weight) {
  const Convolution c = convolution_of(call, weight);
  const Pieces<const float> pieces = {call.data(0), call.data(1)};
  const Kernels& k = kernels();
  return run(c, c.batch * c.slots * c.window.tiles(), k.convolution_scratch, false, [&](int unit, float* memory) {
    k.convolve(c, pieces, call.data(1), call.data(2), call.data(weight), call.data(weight + 2), unit, memory);
  });
}

int convolve_gradient(const Call& call, int weight) {
  const Convolution c = convolution_of(call, weight);
  const int dout = weight + 2, first = dout + 1;
  const Pieces<const float> pieces = {call.data(0), call.data(1)};
  const Pieces<float> dpieces = {call.data(first), call.data(first + 1)};
  float *dlayer = c.has_layer ? call.data(first + 1) : nullptr, *dbias = c.has_layer ? call.data(first + 2) : nullptr;
  const Kernels& k = kernels();
  return run(c, c.slots, k.convolution_scratch, true, [&](int slot, float* memory) {
    k.convolve_gradient(c, pieces, call.data(1), call.data(2), call.data(weight), call.data(dout), dpieces, dlayer,
                        dbias, call.data(first + weight), slot, memory);
  });
}

}  // namespace

#define VISIBLE __attribute__((visibility("default")))
#define OPERATOR(name) VISIBLE int name(int, void** params, int* ranks, int64_t** shapes, const char**, void*, void*)

extern "C" {

VISIBLE void acmix_set_threads(int count) { set_threads(count); }

// (qkv, position, numbers) -> out
OPERATOR(SlidingWindowAttention) {
  const Call call{params, ranks, shapes};
  const Attention a = attention_of(call);
  const Kernels& k = kernels();
  return run(a, a.batch * a.heads * a.window.tiles(), k.attention_scratch, false,
             [&](int unit, float* memory) { k.attend(a, call.data(0), call.data(1), call.data(3), unit, memory); });
}

// (qkv, position, numbers, dout) -> (dqkv, dposition of each image and head)
OPERATOR(SlidingWindowAttentionGradient) {
  const Call call{params, ranks, shapes};
  const Attention a = attention_of(call);
  const Kernels& k = kernels();
  return run(a, a.batch * a.heads, k.attention_scratch, true, [&](int unit, float* memory) {
    k.attend_gradient(a, call.data(0), call.data(1), call.data(3), call.data(4), call.data(5), unit, memory);
  });
}

// (pieces, weight, numbers), (whole pieces, reduced pieces, weight, numbers) or (pieces, layer, bias, weight, numbers)
// -> out
OPERATOR(ConvolutionOfPieces) { return convolve({params, ranks, shapes}, 1); }
OPERATOR(ConvolutionOfReducedPieces) { return convolve({params, ranks, shapes}, 2); }
OPERATOR(LayerAndConvolution) { return convolve({params, ranks, shapes}, 3); }

// The same inputs, then dout -> the gradients of all but the numbers, those of layer and bias slot by slot.
OPERATOR(ConvolutionOfPiecesGradient) { return convolve_gradient({params, ranks, shapes}, 1); }
OPERATOR(ConvolutionOfReducedPiecesGradient) { return convolve_gradient({params, ranks, shapes}, 2); }
OPERATOR(LayerAndConvolutionGradient) { return convolve_gradient({params, ranks, shapes}, 3); }

// (alpha, a, beta, b) -> alpha * a + beta * b
OPERATOR(WeightedSum) {
  const Call call{params, ranks, shapes};
  const Sum s = sum_of(call);
  for_each_unit(s.units(),
                [&](int unit) { kernels().weighted_sum(s, call.data(1), call.data(3), call.data(4), unit); });
  return 0;
}

// (alpha, a, beta, b, dout) -> the gradients of all four
OPERATOR(WeightedSumGradient) {
  const Call call{params, ranks, shapes};
  const Sum s = sum_of(call);
  std::vector<float> of_alpha(s.units()), of_beta(s.units());
  for_each_unit(s.units(), [&](int unit) {
    kernels().weighted_sum_gradient(s, call.data(1), call.data(3), call.data(4), call.data(6), call.data(8),
                                    &of_alpha[unit], &of_beta[unit], unit);
  });
  *call.data(5) = std::accumulate(of_alpha.begin(), of_alpha.end(), 0.0);
  *call.data(7) = std::accumulate(of_beta.begin(), of_beta.end(), 0.0);
  return 0;
}
}

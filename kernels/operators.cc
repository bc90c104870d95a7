// SPDX-License-Identifier: Apache-2.0
// What MindSpore calls, by `ops.Custom(..., func_type="aot")`: inputs, then outputs, as float32 in memory. Each returns
// 0; another number ends the graph with an error.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels.h"
#include "product.h"
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

// Inputs of the convolution path: pieces, layer (k*k, P), bias, weight (C, k*k, k, k), numbers; or, where it is
// reduced, whole pieces, reduced pieces, layer, weight, numbers. The number after P says whether there is a bias, or is
// r.
Convolution convolution_of(const Call& call, bool is_reduced) {
  const int* numbers = call.numbers(4);
  Convolution c;
  c.window = window_of(call, 0, numbers);
  c.batch = call.size(0, 0);
  c.pieces = numbers[3];
  c.slots = (call.size(0, 1) + (is_reduced ? call.size(1, 1) : 0)) / c.pieces;
  c.outputs = call.size(3, 0) / c.slots;
  c.whole = call.size(0, 1) / c.slots;
  c.reduction = is_reduced ? numbers[4] : 1;
  // Multiplied out, layer and weight are one convolution of the pieces: where those are few, the cheaper one.
  const bool is_cheaper = c.pieces * c.outputs <= c.pieces + call.size(3, 1) * c.outputs;
  const bool has_bias = !is_reduced && numbers[4];
  c.has_layer = has_bias || !(is_reduced || is_cheaper);
  c.maps = c.has_layer ? call.size(3, 1) : c.pieces;
  return c;
}

Product product_of(const Convolution& c, const Call& call) {
  return {c.slots * c.outputs, call.size(3, 1), c.pieces, c.window.taps()};
}

Winograd winograd_of(const Call& call) {
  return {call.size(0, 0), call.size(0, 1), call.size(1, 0), call.size(0, 2), call.size(0, 3), false};
}

Sum sum_of(const Call& call) { return {*call.data(0), *call.data(2), call.count(1)}; }

template <typename Shape, typename Scratch, typename Work>
int run(const Shape& shape, int units, Scratch size, bool has_gradient, const Work& work) {
  if (!is_possible(shape.window)) return 1;
  const size_t floats = size(shape, has_gradient);
  for_each_unit(units, [&](int unit) { work(unit, scratch(floats)); });
  return 0;
}

// Write the sum of `parts`, one behind another, of `count` numbers each.
void add_up(const std::vector<float>& parts, size_t count, float* sum) {
  std::fill_n(sum, count, 0.f);
  for (size_t first = 0; first < parts.size(); first += count)
    for (size_t i = 0; i < count; ++i) sum[i] += parts[first + i];
}

int convolve(const Call& call, bool is_reduced) {
  const Convolution c = convolution_of(call, is_reduced);
  const Pieces<const float> pieces = {call.data(0), call.data(1)};
  const float *layer = call.data(is_reduced ? 2 : 1), *bias = call.data(2), *weight = call.data(3);
  const auto product = c.has_layer ? std::vector<float>() : product_of(c, call).of(layer, weight);
  if (!c.has_layer) weight = product.data();
  const Kernels& k = kernels();
  return run(c, c.batch * c.slots * c.window.tiles(), k.convolution_scratch, false,
             [&](int unit, float* memory) { k.convolve(c, pieces, layer, bias, weight, call.data(5), unit, memory); });
}

int convolve_gradient(const Call& call, bool is_reduced) {
  const Convolution c = convolution_of(call, is_reduced);
  const Product multiplied = product_of(c, call);
  const Pieces<const float> pieces = {call.data(0), call.data(1)};
  const Pieces<float> dpieces = {call.data(6), call.data(7)};
  const float *layer = call.data(is_reduced ? 2 : 1), *bias = call.data(2), *weight = call.data(3);
  float *dlayer = call.data(is_reduced ? 8 : 7), *dbias = call.data(8), *dweight = call.data(9);
  const size_t layers = static_cast<size_t>(c.maps) * c.pieces;
  std::vector<float> product, dproduct, dlayers, dbiases;
  if (c.has_layer) {
    dlayers.resize(c.slots * layers);
    dbiases.resize(static_cast<size_t>(c.slots) * c.maps);
  } else {
    product = multiplied.of(layer, weight);
    dproduct.resize(product.size());
  }
  const Kernels& k = kernels();
  const int error = run(c, c.slots, k.convolution_scratch, true, [&](int slot, float* memory) {
    k.convolve_gradient(c, pieces, layer, bias, c.has_layer ? weight : product.data(), call.data(5), dpieces,
                        dlayers.data(), dbiases.data(), c.has_layer ? dweight : dproduct.data(), slot, memory);
  });
  if (c.has_layer) {
    add_up(dlayers, layers, dlayer);
    add_up(dbiases, c.maps, dbias);
  } else {
    multiplied.gradient(layer, weight, dproduct.data(), dlayer, dweight);
    if (!is_reduced) std::fill_n(dbias, call.count(8), 0.f);
  }
  return error;
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

// (qkv, position, numbers, dout) -> (dqkv, dposition)
OPERATOR(SlidingWindowAttentionGradient) {
  const Call call{params, ranks, shapes};
  const Attention a = attention_of(call);
  std::vector<float> dpositions(a.batch * a.heads * call.count(1));  // of each image and head
  const Kernels& k = kernels();
  const int error = run(a, a.batch * a.heads, k.attention_scratch, true, [&](int unit, float* memory) {
    k.attend_gradient(a, call.data(0), call.data(1), call.data(3), call.data(4), dpositions.data(), unit, memory);
  });
  add_up(dpositions, call.count(1), call.data(5));
  return error;
}

// The inputs of `convolution_of` -> out
OPERATOR(ConvolutionPath) { return convolve({params, ranks, shapes}, false); }
OPERATOR(ReducedConvolutionPath) { return convolve({params, ranks, shapes}, true); }

// The same inputs, then dout -> the gradients of all but the numbers
OPERATOR(ConvolutionPathGradient) { return convolve_gradient({params, ranks, shapes}, false); }
OPERATOR(ReducedConvolutionPathGradient) { return convolve_gradient({params, ranks, shapes}, true); }

// (alpha, a, beta, b) -> alpha * a + beta * b
OPERATOR(WeightedSum) {
  const Call call{params, ranks, shapes};
  const Sum s = sum_of(call);
  for_each_unit(runs_of(s.size),
                [&](int run) { kernels().weighted_sum(s, call.data(1), call.data(3), call.data(4), run); });
  return 0;
}

// (alpha, a, beta, b, dout) -> the gradients of all four
OPERATOR(WeightedSumGradient) {
  const Call call{params, ranks, shapes};
  const Sum s = sum_of(call);
  std::vector<float> of_alpha(runs_of(s.size)), of_beta(runs_of(s.size));
  for_each_unit(runs_of(s.size), [&](int run) {
    kernels().weighted_sum_gradient(s, call.data(1), call.data(3), call.data(4), call.data(6), call.data(8),
                                    &of_alpha[run], &of_beta[run], run);
  });
  *call.data(5) = std::accumulate(of_alpha.begin(), of_alpha.end(), 0.0);
  *call.data(7) = std::accumulate(of_beta.begin(), of_beta.end(), 0.0);
  return 0;
}

// x -> x * P(a standard normal variable < x)
OPERATOR(Gelu) {
  const Call call{params, ranks, shapes};
  const size_t size = call.count(0);
  for_each_unit(runs_of(size), [&](int run) { kernels().gelu(size, call.data(0), call.data(1), run); });
  return 0;
}

// (x, dout) -> the gradient of x
OPERATOR(GeluGradient) {
  const Call call{params, ranks, shapes};
  const size_t size = call.count(0);
  for_each_unit(runs_of(size),
                [&](int run) { kernels().gelu_gradient(size, call.data(0), call.data(1), call.data(2), run); });
  return 0;
}

// (x (B, I, H, W), weight (O, I, 3, 3)) -> (B, O, H, W)
OPERATOR(Convolution3x3) {
  const Call call{params, ranks, shapes};
  kernels().winograd(winograd_of(call), call.data(0), call.data(1), call.data(2));
  return 0;
}

// (x, weight, dout) -> the gradients of x and weight
OPERATOR(Convolution3x3Gradient) {
  const Call call{params, ranks, shapes};
  const Winograd w = winograd_of(call);
  const Winograd turned = {w.batch, w.outputs, w.inputs, w.height, w.width, true};
  kernels().winograd(turned, call.data(2), call.data(1), call.data(3));
  kernels().winograd_gradient(w, call.data(0), call.data(2), call.data(4));
  return 0;
}

// (boxes (B, N, 4), scores (B, N), numbers: iou, most) -> (B, N), 1 for those that stay
OPERATOR(NonMaximumSuppression) {
  const Call call{params, ranks, shapes};
  const float* numbers = call.data(2);
  const int boxes = call.size(1, 1);
  const Suppression s = {boxes, std::min(boxes, static_cast<int>(numbers[1])), numbers[0]};
  const size_t floats = kernels().suppression_scratch(s);
  for_each_unit(call.size(1, 0), [&](int image) {
    const size_t first = static_cast<size_t>(image) * boxes;
    kernels().suppress(s, call.data(0) + 4 * first, call.data(1) + first, call.data(3) + first, scratch(floats));
  });
  return 0;
}
}

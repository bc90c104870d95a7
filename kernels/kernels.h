// SPDX-License-Identifier: Apache-2.0
// The kernels of one set of instructions. `operators.cc` calls those that the CPU has.

#pragma once

#include "shapes.h"

// Sliding-window attention of maps (B, 3 * N * d, H, W).
struct Attention {
  Window window;
  int batch, heads, channels;  // N, and d of each head
};

// The convolution path: pieces (B, P * d, H, W), one after another; slot s holds channel s of each piece. What is
// convolved in a slot are its P pieces as they are, or `maps` that a linear layer makes of them: the layer's bias ends
// where the map ends, and beyond are zeros. Without a layer, the last pieces may be reduced: each of their pixels
// stands for r x r of the map, and the last of a row or column for those too that are left.
struct Convolution {
  Window window;
  int batch, slots, pieces, outputs;  // outputs: of each slot, C / d
  int maps;                           // that are convolved in each slot
  bool has_layer;
  int whole;      // pieces that are not reduced
  int reduction;  // r, 1 if all are whole

  int reduced_height() const { return window.height / reduction; }
  int reduced_width() const { return window.width / reduction; }
  size_t size() const { return static_cast<size_t>(window.height) * window.width; }
  size_t reduced_size() const { return static_cast<size_t>(reduced_height()) * reduced_width(); }
};

// The pieces of the slots of an image, or their gradients: whole ones (whole * d, H, W), reduced ones ((P - whole) * d,
// H / r, W / r).
template <typename Float>
struct Pieces {
  Float *whole, *reduced;
};

// alpha * a + beta * b.
struct Sum {
  float alpha, beta;
  size_t size;  // how many numbers a and b have
};

// Of boxes of an image those that overlap no better one by more than `iou`, `most` at most.
struct Suppression {
  int boxes, most;
  float iou;
};

// A 3x3 convolution of stride 1 with a border of zeros: (B, I, H, W) -> (B, O, H, W), its weight (O, I, 3, 3). Turned
// it is the gradient of such a convolution by its input: from that of the output, with the weight as it lies there,
// here (I, O, 3, 3), and each kernel rotated by 180 degrees.
struct Winograd {
  int batch, inputs, outputs, height, width;
  bool is_turned;
};

struct Kernels {
  size_t (*attention_scratch)(const Attention&, bool has_gradient);
  void (*attend)(const Attention&, const float* qkv, const float* position, float* out, int unit, float* memory);
  void (*attend_gradient)(const Attention&, const float* qkv, const float* position, const float* dout, float* dqkv,
                          float* dposition, int unit, float* memory);
  size_t (*convolution_scratch)(const Convolution&, bool has_gradient);
  void (*convolve)(const Convolution&, Pieces<const float> pieces, const float* layer, const float* bias,
                   const float* weight, float* out, int unit, float* memory);
  void (*convolve_gradient)(const Convolution&, Pieces<const float> pieces, const float* layer, const float* bias,
                            const float* weight, const float* dout, Pieces<float> dpieces, float* dlayer, float* dbias,
                            float* dweight, int unit, float* memory);
  void (*weighted_sum)(const Sum&, const float* a, const float* b, float* out, int run);
  void (*weighted_sum_gradient)(const Sum&, const float* a, const float* b, const float* dout, float* da, float* db,
                                float* dalpha, float* dbeta, int run);
  void (*gelu)(size_t size, const float* x, float* out, int run);
  void (*gelu_gradient)(size_t size, const float* x, const float* dout, float* dx, int run);
  size_t (*suppression_scratch)(const Suppression&);
  void (*suppress)(const Suppression&, const float* boxes, const float* scores, float* stays, float* memory);
  // These share their work among the threads themselves.
  void (*winograd)(const Winograd&, const float* x, const float* weight, float* out);
  void (*winograd_gradient)(const Winograd&, const float* x, const float* dout, float* dweight);
};

extern const Kernels plain_kernels, avx2_kernels, avx512_kernels;

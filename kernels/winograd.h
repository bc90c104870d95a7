// SPDX-License-Identifier: Apache-2.0
// A 3x3 convolution with 4/9 of the multiplications (Winograd's F(2x2, 3x3); Lavin and Gray, Fast Algorithms for
// Convolutional Neural Networks, CVPR 2016, section 4.1). For each tile of 2x2 outputs, with d the 4x4 inputs that it
// depends on and g a 3x3 kernel:
//
//     out = A^T [sum over inputs of (G g G^T) * (B^T d B)] A
//
// Both factors are 4x4, and each of these 16 places is a matrix product of its own: (outputs x inputs) by (inputs x
// tiles). Tiles are numbered row by row and image by image, and cut into blocks so small that what one place needs
// stays in a core's cache. Gradients go the same way back.

#pragma once

#include "blocks.h"
#include "kernels.h"
#include "threads.h"
#include "tile.h"

namespace {

constexpr int PLACES = 16;
constexpr int TILES = 2 * LANES;                // of a block
constexpr int PART = 2 * LANES;                 // outputs of a part, in the weight's gradient
constexpr int OUTPUTS_AT_ONCE = 8 * MOST_SUMS;  // that are multiplied; inputs in the weight's gradient
constexpr int BLOCKS_AT_ONCE = 16;              // that the weight's gradient is summed over

// Each multiplies its matrix by a column whose numbers are `step` apart; the result's are `to_step` apart.

struct G {
  template <typename T>
  void operator()(const T* from, size_t step, T* to, size_t to_step) const {
    const T a = from[0], b = from[step], c = from[2 * step];
    to[0] = a;
    to[to_step] = (a + c + b) * .5f;
    to[2 * to_step] = (a + c - b) * .5f;
    to[3 * to_step] = c;
  }
};

struct TransposedG {
  template <typename T>
  void operator()(const T* from, size_t step, T* to, size_t to_step) const {
    const T a = from[0], b = from[step], c = from[2 * step], d = from[3 * step];
    to[0] = a + (b + c) * .5f;
    to[to_step] = (b - c) * .5f;
    to[2 * to_step] = (b + c) * .5f + d;
  }
};

struct TransposedB {
  template <typename T>
  void operator()(const T* from, size_t step, T* to, size_t to_step) const {
    const T a = from[0], b = from[step], c = from[2 * step], d = from[3 * step];
    to[0] = a - c;
    to[to_step] = b + c;
    to[2 * to_step] = c - b;
    to[3 * to_step] = b - d;
  }
};

struct A {
  template <typename T>
  void operator()(const T* from, size_t step, T* to, size_t to_step) const {
    const T a = from[0], b = from[step];
    to[0] = a;
    to[to_step] = a + b;
    to[2 * to_step] = a - b;
    to[3 * to_step] = -b;
  }
};

struct TransposedA {
  template <typename T>
  void operator()(const T* from, size_t step, T* to, size_t to_step) const {
    const T a = from[0], b = from[step], c = from[2 * step], d = from[3 * step];
    to[0] = a + b + c;
    to[to_step] = b - c - d;
  }
};

// to = M from M^T: from N x N numbers to K x K.
template <typename M, int N, int K>
inline void transform(const Vector (&from)[N][N], Vector (&to)[K][K]) {
  Vector half[K][N];
  for (int j = 0; j < N; ++j) M()(&from[0][j], N, &half[0][j], N);
  for (int k = 0; k < K; ++k) M()(half[k], 1, to[k], 1);
}

// How the work is divided.
struct WinogradPlan {
  const Winograd& w;
  const size_t size = static_cast<size_t>(w.height) * w.width;       // of a map
  const int rows = (w.height + 1) / 2, columns = (w.width + 1) / 2;  // of tiles, of an image
  const int tiles = w.batch * rows * columns, blocks = rounded_up_quotient(tiles, TILES);
  const int groups = rounded_up_quotient(w.outputs, MOST_SUMS), parts = rounded_up_quotient(w.outputs, PART);
  // Floats at each place: kernels of a group of outputs, inputs of a block, gradients of the outputs of a block, sums
  // for the weight's gradient.
  const size_t kernels_size = static_cast<size_t>(w.inputs) * MOST_SUMS;
  const size_t inputs_size = static_cast<size_t>(w.inputs) * TILES;
  const size_t gradients_size = static_cast<size_t>(parts) * PART * TILES;
  const size_t sums_size = static_cast<size_t>(w.inputs) * parts * PART;

  int tiles_of(int block) const { return smaller(TILES, tiles - block * TILES); }

  // Tiles of a block that are neighbours in a row.
  struct Run {
    int begin, count;        // in the block
    int image, row, column;  // where the first of them begins in a map
  };

  // Call `function` with one run of a block after another.
  template <typename Function>
  void for_runs(int block, const Function& function) const {
    for (int n = 0; n < tiles_of(block);) {
      const int row = (block * TILES + n) / columns, column = (block * TILES + n) % columns;
      const int count = smaller(tiles_of(block) - n, columns - column);
      function(Run{n, count, row / rows, row % rows * 2, column * 2});
      n += count;
    }
  }
};

// G g G^T for a group of outputs: at each place [input][output].
inline void transform_kernels(const WinogradPlan& plan, const float* weight, float* to, int group) {
  const Winograd& w = plan.w;
  const int first = group * MOST_SUMS, count = smaller(MOST_SUMS, w.outputs - first);
  const size_t of_output = w.is_turned ? 9 : 9 * w.inputs, of_input = w.is_turned ? 9 * w.outputs : 9;
  weight += first * of_output;
  to += group * PLACES * plan.kernels_size;
  Vector g[3][3] = {}, places[4][4];
  for (int i = 0; i < w.inputs; ++i, weight += of_input, to += MOST_SUMS) {
    for (int o = 0; o < count; ++o)
      for (int k = 0; k < 9; ++k) g[k / 3][k % 3][o] = weight[o * of_output + (w.is_turned ? 8 - k : k)];
    transform<G>(g, places);
    for (int p = 0; p < PLACES; ++p)
      __builtin_memcpy(to + p * plan.kernels_size, &places[p / 4][p % 4], MOST_SUMS * sizeof(float));
  }
}

// B^T d B for a block of tiles: at each place [input][tile].
inline void transform_inputs(const WinogradPlan& plan, const float* x, float* to, int block) {
  constexpr size_t ROW = 2 * TILES + 2;  // the inputs of a run: two for each tile, and one at either end
  const float none[ROW] = {};
  const Winograd& w = plan.w;
  if (plan.tiles_of(block) < TILES) zero(to, PLACES * plan.inputs_size);
  plan.for_runs(block, [&](const WinogradPlan::Run& run) {
    const int top = run.row - 1, left = run.column - 1, width = 2 * run.count + 2;
    const int begin = left < 0 ? 1 : 0, end = smaller(width, w.width - left);
    for (int i = 0; i < w.inputs; ++i) {
      const float* map = x + (static_cast<size_t>(run.image) * w.inputs + i) * plan.size;
      const float* rows[4];
      for (int k = 0; k < 4; ++k)
        rows[k] = inside(top + k, w.height) < 0 ? none : map + static_cast<size_t>(top + k) * w.width + (left + begin);
      // B^T d, with zeros beyond the ends of a row.
      float lines[4][ROW];
      for (int n = 0; n < end - begin; ++n) {
        const float column[4] = {rows[0][n], rows[1][n], rows[2][n], rows[3][n]};
        TransposedB()(column, 1, &lines[0][begin + n], ROW);
      }
      for (int k = 0; k < 4; ++k) {
        if (begin) lines[k][0] = 0;
        for (int n = end; n < width; ++n) lines[k][n] = 0;
      }
      float* places = to + static_cast<size_t>(i) * TILES + run.begin;
      for (int k = 0; k < 4; ++k, places += 4 * plan.inputs_size)
#pragma GCC ivdep
        for (int n = 0; n < run.count; ++n) TransposedB()(&lines[k][2 * n], 1, places + n, plan.inputs_size);
    }
  });
}

// A^T m A for some outputs of a block.
inline void transform_products(const WinogradPlan& plan, const float (&products)[PLACES][OUTPUTS_AT_ONCE][TILES],
                               float* out, int block, int first, int count) {
  const Winograd& w = plan.w;
  for (int o = 0; o < count; ++o) {
    alignas(64) float pixels[2][2][TILES];
    for (int n = 0; n < plan.tiles_of(block); n += LANES) {
      Vector m[4][4], y[2][2];
      for (int p = 0; p < PLACES; ++p) m[p / 4][p % 4] = load(&products[p][o][n]);
      transform<TransposedA>(m, y);
      for (int k = 0; k < 4; ++k) store(&pixels[k / 2][k % 2][n], y[k / 2][k % 2]);
    }
    plan.for_runs(block, [&](const WinogradPlan::Run& run) {
      float* map = out + (static_cast<size_t>(run.image) * w.outputs + first + o) * plan.size + run.column;
      const int whole = smaller(run.count, (w.width - run.column) / 2);  // the last column may have half a tile
      for (int k = 0; k < smaller(2, w.height - run.row); ++k) {
        float* to = map + static_cast<size_t>(run.row + k) * w.width;
        const float *even = &pixels[k][0][run.begin], *odd = &pixels[k][1][run.begin];
#pragma GCC ivdep
        for (int n = 0; n < whole; ++n) {
          to[2 * n] = even[n];
          to[2 * n + 1] = odd[n];
        }
        if (whole < run.count) to[2 * whole] = even[whole];
      }
    });
  }
}

// All products for `count` outputs of a block from `first` on, and what becomes of them in `out`.
inline void multiply(const WinogradPlan& plan, const float* inputs, const float* kernels, float* out, int block,
                     int first, int count) {
  alignas(64) float products[PLACES][OUTPUTS_AT_ONCE][TILES];
  for (int p = 0; p < PLACES; ++p)
    for (int o = 0; o < count; o += MOST_SUMS)  // at most so many are one block of sums, which begins at 0
      for_blocks(smaller(MOST_SUMS, count - o), rounded_up_quotient(plan.tiles_of(block), LANES),
                 [&](auto sizes, int, int n) {
                   constexpr int N = decltype(sizes)::count, X = decltype(sizes)::vectors;
                   Vector sums[N][X] = {};
                   const float* factors = kernels + ((first + o) / MOST_SUMS * PLACES + p) * plan.kernels_size;
                   const float* values = inputs + p * plan.inputs_size + n;
                   for (int i = 0; i < plan.w.inputs; ++i, factors += MOST_SUMS, values += TILES)
                     add_products<N, X>(factors, 1, values, LANES, sums);
                   for (int k = 0; k < N; ++k)
                     for (int v = 0; v < X; ++v) store(&products[p][o + k][n + v * LANES], sums[k][v]);
                 });
  transform_products(plan, products, out, block, first, count);
}

void winograd(const Winograd& w, const float* x, const float* weight, float* out) {
  const WinogradPlan plan{w};
  float* kernels = shared_scratch(plan.groups * PLACES * plan.kernels_size);
  for_each_unit(plan.groups, [&](int group) { transform_kernels(plan, weight, kernels, group); });
  // A small map has few blocks; its outputs are divided too, into about four units a thread.
  const int pieces = rounded_up_quotient(w.outputs, OUTPUTS_AT_ONCE);
  const int wanted = smaller(pieces, rounded_up_quotient(4 * threads(), plan.blocks));
  const int of_share = rounded_up_quotient(pieces, wanted), shares = rounded_up_quotient(pieces, of_share);
  const int share = of_share * OUTPUTS_AT_ONCE;
  for_each_unit(plan.blocks * shares, [&](int unit) {
    const int block = unit / shares, begin = unit % shares * share, end = smaller(w.outputs, begin + share);
    float* inputs = scratch(PLACES * plan.inputs_size);
    transform_inputs(plan, x, inputs, block);
    for (int first = begin; first < end; first += OUTPUTS_AT_ONCE)
      multiply(plan, inputs, kernels, out, block, first, smaller(OUTPUTS_AT_ONCE, end - first));
  });
}

// A (gradient of the outputs) A^T for a block of tiles: at each place [part][tile][output].
inline void transform_gradients(const WinogradPlan& plan, const float* dout, float* to, int block) {
  const Winograd& w = plan.w;
  plan.for_runs(block, [&](const WinogradPlan::Run& run) {
    for (int first = 0; first < plan.parts * PART; first += LANES) {
      const int count = smaller(LANES, w.outputs - first);
      const float* maps =
          dout + (static_cast<size_t>(run.image) * w.outputs + smaller(first, w.outputs - 1)) * plan.size;
      float* place = to + (first / PART * TILES + run.begin) * PART + first % PART;
      for (int n = 0; n < run.count; ++n, place += PART) {
        const int row = run.row, column = run.column + 2 * n;
        Vector y[2][2] = {}, places[4][4];
        for (int k = 0; k < smaller(2, w.height - row); ++k)
          for (int j = 0; j < smaller(2, w.width - column); ++j) {
            const float* from = maps + static_cast<size_t>(row + k) * w.width + column + j;
            for (int o = 0; o < count; ++o) y[k][j][o] = from[o * plan.size];
          }
        transform<A>(y, places);
        for (int p = 0; p < PLACES; ++p) store(place + p * plan.gradients_size, places[p / 4][p % 4]);
      }
    }
  });
}

// At one place and for `count` inputs from `first` on: sums[input][output] += inputs * gradients, over the tiles of
// `blocks` blocks.
inline void add_gradients(const WinogradPlan& plan, const float* inputs, const float* gradients, float* sums, int block,
                          int blocks, int first, int count) {
  for (int part = 0; part < plan.parts; ++part)
    blocks_of<2>(count, 0, [&](auto sizes, int i, int) {
      constexpr int N = decltype(sizes)::count;
      Vector added[N][2] = {};
      for (int b = 0; b < blocks; ++b) {
        const float* factors = inputs + b * PLACES * plan.inputs_size + static_cast<size_t>(first + i) * TILES;
        const float* values = gradients + b * PLACES * plan.gradients_size + static_cast<size_t>(part) * PART * TILES;
        for (int n = 0; n < plan.tiles_of(block + b); ++n)
          add_products<N, 2>(factors + n, TILES, values + n * PART, LANES, added);
      }
      for (int k = 0; k < N; ++k)
        for (int v = 0; v < 2; ++v) {
          float* to = sums + (static_cast<size_t>(first + i + k) * plan.parts + part) * PART + v * LANES;
          store(to, block ? load(to) + added[k][v] : added[k][v]);
        }
    });
}

// G^T (sums) G for the kernels of LANES outputs.
inline void transform_sums(const WinogradPlan& plan, const float* sums, float* dweight, int first) {
  const Winograd& w = plan.w;
  for (int i = 0; i < w.inputs; ++i) {
    Vector places[4][4], g[3][3];
    for (int p = 0; p < PLACES; ++p)
      places[p / 4][p % 4] = load(sums + p * plan.sums_size + static_cast<size_t>(i) * plan.parts * PART + first);
    transform<TransposedG>(places, g);
    for (int o = 0; o < smaller(LANES, w.outputs - first); ++o)
      for (int k = 0; k < 9; ++k) dweight[(static_cast<size_t>(first + o) * w.inputs + i) * 9 + k] = g[k / 3][k % 3][o];
  }
}

// The gradient of the weight, of a convolution that is not turned. That of x is a convolution of `dout`, turned.
void winograd_gradient(const Winograd& w, const float* x, const float* dout, float* dweight) {
  const WinogradPlan plan{w};
  const int together = smaller(plan.blocks, BLOCKS_AT_ONCE), shares = rounded_up_quotient(w.inputs, OUTPUTS_AT_ONCE);
  float* sums = shared_scratch(PLACES * (plan.sums_size + together * (plan.inputs_size + plan.gradients_size)));
  float *inputs = sums + PLACES * plan.sums_size, *gradients = inputs + together * PLACES * plan.inputs_size;
  for (int block = 0; block < plan.blocks; block += together) {
    const int blocks = smaller(together, plan.blocks - block);
    for_each_unit(blocks, [&](int b) {
      transform_inputs(plan, x, inputs + b * PLACES * plan.inputs_size, block + b);
      transform_gradients(plan, dout, gradients + b * PLACES * plan.gradients_size, block + b);
    });
    for_each_unit(PLACES * shares, [&](int unit) {
      const int p = unit / shares, first = unit % shares * OUTPUTS_AT_ONCE,
                count = smaller(OUTPUTS_AT_ONCE, w.inputs - first);
      add_gradients(plan, inputs + p * plan.inputs_size, gradients + p * plan.gradients_size, sums + p * plan.sums_size,
                    block, blocks, first, count);
    });
  }
  for_each_unit(rounded_up_quotient(w.outputs, LANES),
                [&](int part) { transform_sums(plan, sums, dweight, part * LANES); });
}

}  // namespace

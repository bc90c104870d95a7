// SPDX-License-Identifier: Apache-2.0
// The convolution path (paper, section 4.2), tile by tile: its k*k maps a slot never lie in memory as a whole.
//
//     maps[t] = sum over p of layer[t, p] * pieces[p] + bias[t]          `fc`, for each pixel
//     out[m]  = sum over t and offsets o of weight[m, t, o] * maps[t] at o          shift and sum
//
// Both are linear, so with few pieces their product (`product.h`) is the cheaper convolution: of the pieces as they
// are, without a layer.

#pragma once

#include "blocks.h"
#include "kernels.h"
#include "tile.h"

namespace {

// The layer is applied to about so many pixels at a time, whole rows of them: as many as stay in the nearest cache.
constexpr int STRIPE = 128;

inline int rows_of_stripe(const Window& w, const Region& region) {
  if (region.columns < w.width || region.columns > STRIPE) return 1;  // only whole rows lie one behind another
  return smaller(region.rows, STRIPE / region.columns);
}

// What one slot of one image needs at hand for a tile. `memory` holds what `convolution_scratch` says.
struct SlotTile : PaddedTile {
  const Convolution& c;
  const Region region;
  const int stripe;        // rows of the region that the layer is applied to at a time
  const size_t run;        // of the pixels of a stripe, with what fills the last vector
  const size_t dout_size;  // of a map of `dout`
  float *maps, *pieces, *linear, *dmaps, *dout;
  float* spare;         // a row of the region
  int* reduced_column;  // for each column of the region: that of a reduced piece

  SlotTile(const Convolution& convolution, int index, bool has_gradient, float* memory)
      : PaddedTile(convolution.window, index, inside, memory),
        c(convolution),
        region(w, tile),
        stripe(has_gradient ? region.rows : rows_of_stripe(w, region)),
        run(rounded_up(stripe * region.columns)),
        dout_size(tile.rows * step) {
    maps = take(c.maps * map_size);
    pieces = linear = dmaps = dout = nullptr;
    spare = take(row_size);
    reduced_column = reinterpret_cast<int*>(take(row_size));
    for (int x = 0; c.whole < c.pieces && x < region.columns; ++x)
      reduced_column[x] = smaller((region.first_column + x) / c.reduction, c.reduced_width() - 1);
    if (c.has_layer) {
      pieces = take(c.pieces * run);
      linear = take(c.maps * run);
    }
    if (has_gradient) {
      dmaps = take(c.maps * map_size);
      dout = take(c.outputs * dout_size) + margin;
    }
  }

  // The input's row of a padded one; -1 for a row of zeros.
  int source(int r) const { return inside(first_source_row() + r, w.height); }

  // Row y of the region, of a whole piece.
  template <typename Float>
  Float* whole_row(Pieces<Float> from, int p, int y) const {
    return from.whole + p * c.slots * size + static_cast<size_t>(region.first_row + y) * w.width + region.first_column;
  }

  // Of a reduced one the row that stands for it, from its first column on.
  template <typename Float>
  Float* reduced_row(Pieces<Float> from, int p, int y) const {
    const int row = smaller((region.first_row + y) / c.reduction, c.reduced_height() - 1);
    return from.reduced + (static_cast<size_t>(p - c.whole) * c.slots * c.reduced_height() + row) * c.reduced_width();
  }

  // Row y of the region, of any piece: where it lies, or in `spare`.
  const float* piece_row(Pieces<const float> from, int p, int y) const {
    if (p < c.whole) return whole_row(from, p, y);
    const float* row = reduced_row(from, p, y);
    for (int x = 0; x < region.columns; ++x) spare[x] = row[reduced_column[x]];
    return spare;
  }

  // Add the gradient of a padded row to that of row y of a piece.
  void add_to_piece(Pieces<float> to, int p, int y, const float* padded) const {
    if (p < c.whole) {
      add_padded_row(padded, w, tile, columns, whole_row(to, p, y) - region.first_column);
      return;
    }
    zero(spare, region.columns);
    add_padded_row(padded, w, tile, columns, spare - region.first_column);
    float* row = reduced_row(to, p, y);
    for (int x = 0; x < region.columns;) {
      const int column = reduced_column[x];
      float sum = 0;
      for (; x < region.columns && reduced_column[x] == column; ++x) sum += spare[x];
      row[column] += sum;
    }
  }

  // A padded row of the region's row y.
  float* padded_row(float* whole, int t, int y) const {
    return whole + t * map_size + (region.first_row + y - first_source_row()) * row_size;
  }

  // Fill `maps`: with the pieces as they are, or with what the layer makes of them.
  void read(Pieces<const float> from, const float* layer, const float* bias) const {
    zero(maps, c.maps * map_size);
    for (int y = 0; y < region.rows; y += stripe) {
      const int rows = smaller(stripe, region.rows - y);
      if (c.has_layer) apply_layer(from, y, rows, layer, bias);
      for (int t = 0; t < c.maps; ++t)
        for (int k = 0; k < rows; ++k) {
          const float* row = c.has_layer ? linear + t * run + k * region.columns : piece_row(from, t, y + k);
          copy_inside(row - region.first_column, w, tile, columns, padded_row(maps, t, y + k));
        }
    }
  }

  // Fill `linear` with the layer's outputs for some rows of the region.
  void apply_layer(Pieces<const float> from, int y, int rows, const float* layer, const float* bias) const {
    const float* source = whole_row(from, 0, y);
    size_t apart = c.slots * size;
    const int pixels = rows * region.columns;
    for (int p = 0; p < c.pieces; ++p) fetch(whole_row(from, p, y + 2 * rows), pixels);
    const size_t begin = static_cast<size_t>(region.first_row + y) * w.width + region.first_column;
    // The gradient needs all of them again, and vectors must not reach beyond the map's end.
    if (dmaps || begin + rounded_up(pixels) > size) {
      for (int p = 0; p < c.pieces; ++p) {
        float* to = pieces + p * run;
        for (int k = 0; k < rows; ++k)
          __builtin_memcpy(to + k * region.columns, whole_row(from, p, y + k), region.columns * sizeof(float));
        zero(to + pixels, run - pixels);
      }
      source = pieces;
      apart = run;
    }
    for_blocks(c.maps, rounded_up(pixels) / LANES, [&](auto block, int t, int n) {
      constexpr int N = decltype(block)::count, X = decltype(block)::vectors;
      Vector sums[N][X];
      for (int i = 0; i < N; ++i)
        for (int x = 0; x < X; ++x) sums[i][x] = all(bias[t + i]);
      for (int p = 0; p < c.pieces; ++p)
        add_products<N, X>(layer + t * c.pieces + p, c.pieces, source + p * apart + n, LANES, sums);
      for (int i = 0; i < N; ++i)
        for (int x = 0; x < X; ++x) store(linear + (t + i) * run + n + x * LANES, sums[i][x]);
    });
  }

  // Copy the tile of a slot's output gradients, with zeros around each row.
  void read_dout(const float* from) const {
    zero(dout - margin, c.outputs * dout_size);
    for (int m = 0; m < c.outputs; ++m)
      for (int y = 0; y < tile.rows; ++y) {
        const size_t place = static_cast<size_t>(tile.first_row + y) * w.out_width() + tile.first_column;
        __builtin_memcpy(dout + m * dout_size + y * step, from + m * out_size + place, tile.columns * sizeof(float));
      }
  }

  // `for_blocks` at the places of a padded row that lie inside of the map; function(block, first, phase, place).
  template <typename Function>
  void for_places(int count, const Function& function) const {
    for (int phase = 0; phase < w.stride; ++phase) {
      const int begin = columns.begin[phase], end = smaller(columns.end[phase], tile.columns + tile.reach);
      const int length = rounded_up(end - begin), first = smaller(begin, tile.width - length);
      for_blocks(count, length / LANES,
                 [&](auto block, int i, int place) { function(block, i, phase, first + place); });
    }
  }

  // What the maps receive from all outputs, inside of the map: a convolution of those.
  void gather_dmaps(const float* weight) const {
    const size_t of_map = w.taps(), of_output = c.maps * of_map;
    for (int r = 0; r < tile.padded_rows; ++r) {
      if (source(r) < 0) continue;
      for_places(c.maps, [&](auto block, int t, int phase, int n) {
        constexpr int N = decltype(block)::count, X = decltype(block)::vectors;
        Vector sums[N][X] = {};
        for (int i = 0; i < w.kernel; ++i) {
          const int above = r - i * w.dilation;
          if (above < 0 || above % w.stride || above / w.stride >= tile.rows) continue;
          for (int j = 0; j < w.kernel; ++j) {
            if (taps[j].phase != phase) continue;
            const float* row = dout + above / w.stride * step + n - taps[j].place;
            const float* factors = weight + t * of_map + i * w.kernel + j;
            for (int m = 0; m < c.outputs; ++m)
              add_products<N, X>(factors + m * of_output, of_map, row + m * dout_size, LANES, sums);
          }
        }
        float* to = dmaps + t * map_size + r * row_size + phase * tile.width + n;
        for (int i = 0; i < N; ++i)
          for (int x = 0; x < X; ++x) store(to + i * map_size + x * LANES, sums[i][x]);
      });
    }
  }

  // Add to the weight's gradient, for N outputs and T taps of a row of one map.
  template <int N, int T>
  inline void add_dweight(int m, int t, int i, int j, float* dweight) const {
    Vector sums[N][T] = {};
    for (int y = 0; y < tile.rows; ++y) {
      const float* row = maps + t * map_size + (y * w.stride + i * w.dilation) * row_size;
      const float* gradient = dout + m * dout_size + y * step;
      for (int x = 0; x < tile.columns; x += LANES) {
        Vector values[T];
#pragma GCC unroll 3
        for (int k = 0; k < T; ++k) values[k] = load(row + places[j + k] + x);
#pragma GCC unroll 4
        for (int o = 0; o < N; ++o) {
          const Vector g = load(gradient + o * dout_size + x);
#pragma GCC unroll 3
          for (int k = 0; k < T; ++k) sums[o][k] += g * values[k];
        }
      }
    }
    for (int o = 0; o < N; ++o)
      for (int k = 0; k < T; ++k) {
        float& place = dweight[((m + o) * c.maps + t) * w.taps() + i * w.kernel + j + k];
        place += sum_of(sums[o][k]);
      }
  }

  void add_all_dweights(float* dweight) const {
    for (int t = 0; t < c.maps; ++t)
      for (int i = 0; i < w.kernel; ++i)
        for_pairs(c.outputs, w.kernel, [&](auto block, int m, int j) {
          add_dweight<decltype(block)::count, decltype(block)::vectors>(m, t, i, j, dweight);
        });
  }

  // From the maps on to the pieces, through the layer; add to its own gradients.
  void pass_on(const float* layer, Pieces<float> to, float* dlayer, float* dbias) const {
    if (!c.has_layer) {
      for (int p = 0; p < c.pieces; ++p)
        for (int y = 0; y < region.rows; ++y) add_to_piece(to, p, y, padded_row(dmaps, p, y));
      return;
    }
    zero(linear, c.maps * run);
    for (int t = 0; t < c.maps; ++t)
      for (int y = 0; y < region.rows; ++y) {
        float* row = linear + t * run + y * region.columns;
        add_padded_row(padded_row(dmaps, t, y), w, tile, columns, row - region.first_column);
      }
    for_pairs(c.maps, c.pieces, [&](auto block, int t, int p) {
      add_dlayer<decltype(block)::count, decltype(block)::vectors>(t, p, dlayer);
    });
    for (int t = 0; t < c.maps; ++t) {
      Vector sum = {};
      for (size_t n = 0; n < run; n += LANES) sum += load(linear + t * run + n);
      dbias[t] += sum_of(sum);
    }
    pass_to_pieces(layer, to);
  }

  // Add to the layer's gradient, for N maps and T pieces.
  template <int N, int T>
  void add_dlayer(int t, int p, float* dlayer) const {
    Vector sums[N][T] = {};
    for (size_t n = 0; n < run; n += LANES) {
      Vector values[T];
#pragma GCC unroll 3
      for (int k = 0; k < T; ++k) values[k] = load(pieces + (p + k) * run + n);
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const Vector gradient = load(linear + (t + i) * run + n);
#pragma GCC unroll 3
        for (int k = 0; k < T; ++k) sums[i][k] += gradient * values[k];
      }
    }
    for (int i = 0; i < N; ++i)
      for (int k = 0; k < T; ++k) dlayer[(t + i) * c.pieces + p + k] += sum_of(sums[i][k]);
  }

  // `pieces` are no longer needed, and take the gradients before they are added to their rows.
  void pass_to_pieces(const float* layer, Pieces<float> to) const {
    for_blocks(c.pieces, run / LANES, [&](auto block, int p, int n) {
      constexpr int N = decltype(block)::count, X = decltype(block)::vectors;
      Vector sums[N][X] = {};
      for (int t = 0; t < c.maps; ++t)
        add_products<N, X>(layer + t * c.pieces + p, 1, linear + t * run + n, LANES, sums);
      for (int i = 0; i < N; ++i)
        for (int x = 0; x < X; ++x) store(pieces + (p + i) * run + n + x * LANES, sums[i][x]);
    });
    for (int p = 0; p < c.pieces; ++p)
      for (int y = 0; y < region.rows; ++y) {
        const float* from = pieces + p * run + y * region.columns;
        float* row = whole_row(to, p, y);
        for (int x = 0; x < region.columns; ++x) row[x] += from[x];
      }
  }
};

size_t convolution_scratch(const Convolution& c, bool has_gradient) {
  const PaddedSizes of(c.window);
  size_t count = of.fixed + c.maps * of.map + 2 * of.row;
  if (c.has_layer) count += (c.pieces + c.maps) * of.map;
  if (has_gradient) count += c.maps * of.map + c.outputs * TILE_ROWS * of.step;
  return count;
}

// All outputs of a tile of one slot: two vectors of a row at a time, or, of tiles as narrow as one (IS_NARROW), two
// rows.
template <bool IS_NARROW>
inline void convolve_tile(const SlotTile& at, const float* weight, float* out) {
  const Window& w = at.c.window;
  const Tile& tile = at.tile;
  const size_t of_output = static_cast<size_t>(at.c.maps) * w.taps();
  const size_t step = IS_NARROW ? w.stride * at.row_size : LANES, out_step = IS_NARROW ? w.out_width() : LANES;
  for (int y = 0; y < tile.rows; y += IS_NARROW ? 2 : 1) {
    float* to = out + static_cast<size_t>(tile.first_row + y) * w.out_width() + tile.first_column;
    for_blocks(at.c.outputs, IS_NARROW ? smaller(2, tile.rows - y) : tile.vectors, [&](auto block, int m, int x) {
      constexpr int N = decltype(block)::count, X = decltype(block)::vectors;
      Vector sums[N][X] = {};
      const float* factors = weight + m * of_output;
      for (int t = 0; t < at.c.maps; ++t)
        for (int i = 0; i < w.kernel; ++i) {
          const float* row = at.maps + t * at.map_size + (y * w.stride + i * w.dilation) * at.row_size;
          if (!IS_NARROW) row += x;
          for (int j = 0; j < w.kernel; ++j) add_products<N, X>(factors++, of_output, row + at.places[j], step, sums);
        }
      for (int i = 0; i < N; ++i)
        for (int v = 0; v < X; ++v) {
          float* place = to + (m + i) * at.out_size + v * out_step;
          if (IS_NARROW)
            store_first(place, sums[i][v], tile.columns);
          else
            store_first(place + x, sums[i][v], tile.columns - x - v * LANES);
        }
    });
  }
}

// The pieces of one slot of one image.
template <typename Float>
Pieces<Float> of_slot(const Convolution& c, Pieces<Float> all, int image, int slot) {
  return {all.whole + (static_cast<size_t>(image) * c.whole * c.slots + slot) * c.size(),
          all.reduced + (static_cast<size_t>(image) * (c.pieces - c.whole) * c.slots + slot) * c.reduced_size()};
}

// One tile of one slot of one image: unit (b * slots + slot) * tiles + tile.
void convolve(const Convolution& c, Pieces<const float> pieces, const float* layer, const float* bias,
              const float* weight, float* out, int unit, float* memory) {
  const Window& w = c.window;
  const int slot = unit / w.tiles() % c.slots, image = unit / w.tiles() / c.slots;
  const SlotTile at(c, unit % w.tiles(), false, memory);
  at.read(of_slot(c, pieces, image, slot), layer, bias);
  weight += static_cast<size_t>(slot) * c.outputs * c.maps * w.taps();
  out += static_cast<size_t>(image * c.slots + slot) * c.outputs * at.out_size;
  if (at.tile.vectors == 1)
    convolve_tile<true>(at, weight, out);
  else
    convolve_tile<false>(at, weight, out);
}

// One slot of all images, one after another, as they share the slot's weight. The gradients of the layer and its bias
// are those of this slot alone.
void convolve_gradient(const Convolution& c, Pieces<const float> pieces, const float* layer, const float* bias,
                       const float* weight, const float* dout, Pieces<float> dpieces, float* dlayer, float* dbias,
                       float* dweight, int slot, float* memory) {
  const Window& w = c.window;
  const size_t out_size = static_cast<size_t>(w.out_height()) * w.out_width();
  const size_t weights = static_cast<size_t>(c.outputs) * c.maps * w.taps();
  weight += slot * weights;
  dweight += slot * weights;
  zero(dweight, weights);
  if (c.has_layer) {
    dlayer += slot * c.maps * c.pieces;
    zero(dlayer, c.maps * c.pieces);
    dbias += slot * c.maps;
    zero(dbias, c.maps);
  }
  for (int image = 0; image < c.batch; ++image) {
    const Pieces<float> to = of_slot(c, dpieces, image, slot);
    for (int p = 0; p < c.whole; ++p) zero(to.whole + p * c.slots * c.size(), c.size());
    for (int p = 0; p < c.pieces - c.whole; ++p) zero(to.reduced + p * c.slots * c.reduced_size(), c.reduced_size());
    for (int index = 0; index < w.tiles(); ++index) {
      const SlotTile at(c, index, true, memory);
      at.read(of_slot(c, pieces, image, slot), layer, bias);
      at.read_dout(dout + static_cast<size_t>(image * c.slots + slot) * c.outputs * out_size);
      at.add_all_dweights(dweight);
      at.gather_dmaps(weight);
      at.pass_on(layer, to, dlayer, dbias);
    }
  }
}

}  // namespace

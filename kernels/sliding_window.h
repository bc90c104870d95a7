// SPDX-License-Identifier: Apache-2.0
// Sliding-window self-attention (paper, section 3.2), exact, tile by tile: no logit ever leaves the cache.
//
//     weights[t] = softmax over t of query . (key[t] - position[t]) / sqrt(d)        t: the k x k taps of a window
//     out        = sum over t of weights[t] * value[t]
//
// position[t] = W_p (x, y) of the tap's pixel, x and y from -1 to 1. The gradient computes the weights anew from query
// and key.

#pragma once

#include "kernels.h"
#include "tile.h"

namespace {

constexpr int AT_ONCE = 7;  // sums that stay in registers

template <int N>
struct Count {
  static constexpr int value = N;
};

// Call `function` with `count`, at most AT_ONCE, as a constant.
template <typename Function>
inline void by_count(int count, const Function& function) {
  switch (smaller(AT_ONCE, count)) {
    case 1: return function(Count<1>());
    case 2: return function(Count<2>());
    case 3: return function(Count<3>());
    case 4: return function(Count<4>());
    case 5: return function(Count<5>());
    case 6: return function(Count<6>());
    default: return function(Count<7>());
  }
}

// For T taps of a window's row: the inner products of `query` with what lies there, over all channels.
template <int T>
inline void products(const float* query, size_t query_step, const float* row, size_t channel_size, const int* places,
                     int channels, float* out) {
  Vector sums[T] = {};
  for (int c = 0; c < channels; ++c) {
    const Vector q = load(query + c * query_step);
#pragma GCC unroll 7
    for (int t = 0; t < T; ++t) sums[t] += q * load(row + c * channel_size + places[t]);
  }
#pragma GCC unroll 7
  for (int t = 0; t < T; ++t) store(out + t * LANES, sums[t]);
}

// The same for all taps: (k*k, LANES).
inline void all_products(const Attention& a, const float* query, size_t query_step, const float* maps,
                         size_t channel_size, size_t row_size, const int* places, float* out) {
  const Window& w = a.window;
  for (int i = 0; i < w.kernel; ++i)
    for (int j = 0; j < w.kernel; j += AT_ONCE) {
      const float* row = maps + i * w.dilation * row_size;
      float* to = out + (i * w.kernel + j) * LANES;
      by_count(w.kernel - j, [&](auto count) {
        products<decltype(count)::value>(query, query_step, row, channel_size, places + j, a.channels, to);
      });
    }
}

// For C channels: the sum over all taps of weight times what lies there.
template <int C>
inline void weighted(const Window& w, const float* weights, size_t weight_step, const float* maps, size_t channel_size,
                     size_t row_size, const int* places, Vector* sums) {
  for (int c = 0; c < C; ++c) sums[c] = Vector{};
  for (int i = 0; i < w.kernel; ++i)
    for (int j = 0; j < w.kernel; ++j) {
      const Vector weight = load(weights + (i * w.kernel + j) * weight_step);
      const float* tap = maps + i * w.dilation * row_size + places[j];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sums[c] += weight * load(tap + c * channel_size);
    }
}

template <typename Take>
inline void all_weighted(const Attention& a, const float* weights, size_t weight_step, const float* maps,
                         size_t channel_size, size_t row_size, const int* places, Take take) {
  Vector sums[8];
  int c = 0;
  for (; c + 8 <= a.channels; c += 8) {
    weighted<8>(a.window, weights, weight_step, maps + c * channel_size, channel_size, row_size, places, sums);
    for (int i = 0; i < 8; ++i) take(c + i, sums[i]);
  }
  for (; c + 4 <= a.channels; c += 4) {
    weighted<4>(a.window, weights, weight_step, maps + c * channel_size, channel_size, row_size, places, sums);
    for (int i = 0; i < 4; ++i) take(c + i, sums[i]);
  }
  for (; c < a.channels; ++c) {
    weighted<1>(a.window, weights, weight_step, maps + c * channel_size, channel_size, row_size, places, sums);
    take(c, sums[0]);
  }
}

// For T rows of a window, at one place of a phase: the sum over the row's taps there of weight times map, both as far
// back as the tap is ahead. That is what those taps receive from all queries that see them.
template <int T>
inline void received(const Window& w, const float* weights, size_t weight_step, const float* map, const Tap* taps,
                     int phase, float* to, size_t row_size) {
  Vector sums[T] = {};
  for (int j = 0; j < w.kernel; ++j) {
    if (taps[j].phase != phase) continue;
    const Vector value = load(map - taps[j].place);
    const float* weight = weights + j * weight_step - taps[j].place;
#pragma GCC unroll 7
    for (int t = 0; t < T; ++t) sums[t] += load(weight + t * w.kernel * weight_step) * value;
  }
#pragma GCC unroll 7
  for (int t = 0; t < T; ++t) {
    float* place = to + t * w.dilation * row_size;
    store(place, load(place) + sums[t]);
  }
}

// The same for all rows of a window, phases, places and channels.
inline void all_received(const Attention& a, const Tile& tile, const float* weights, const float* map, size_t step,
                         const Tap* taps, float* gradient, size_t channel_size) {
  const Window& w = a.window;
  const int used = rounded_up(tile.columns + tile.reach);
  for (int phase = 0; phase < w.stride; ++phase)
    for (int n = 0; n < used; n += LANES)
      for (int c = 0; c < a.channels; ++c)
        for (int i = 0; i < w.kernel; i += AT_ONCE) {
          const float* rows = weights + i * w.kernel * step + n;
          float* to = gradient + c * channel_size + i * w.dilation * tile.row_size + phase * tile.width + n;
          by_count(w.kernel - i, [&](auto count) {
            received<decltype(count)::value>(w, rows, step, map + c * step + n, taps, phase, to, tile.row_size);
          });
        }
}

// From -1 to 1 over n pixels.
inline float location(int i, int n) { return n > 1 ? -1.0f + 2.0f * i / (n - 1) : -1.0f; }

// Turn the logits (k*k, LANES) into weights that have yet to be divided by their sum, which is returned.
inline Vector softmax(const Window& w, float* logits) {
  Vector largest = load(logits), sum = {};
  for (int t = 1; t < w.taps(); ++t) largest = larger(largest, load(logits + t * LANES));
  for (int t = 0; t < w.taps(); ++t) {
    const Vector weight = exponential(load(logits + t * LANES) - largest);
    store(logits + t * LANES, weight);
    sum += weight;
  }
  return sum;
}

// What one head of one image needs at hand for a tile. `memory` holds what `attention_scratch` says.
struct HeadTile : PaddedTile {
  const Attention& a;
  float *key, *value, *query, *block, *locations;   // forward
  float *dkey, *dvalue, *dout, *weights, *dlogits;  // and for the gradient

  HeadTile(const Attention& attention, int index, bool has_gradient, float* memory)
      : PaddedTile(attention.window, index, reflected, memory), a(attention) {
    key = take(a.channels * map_size);
    value = take(a.channels * map_size);
    locations = take(row_size);
    block = take(2 * w.taps() * LANES);
    query = take(a.channels * step) + margin;
    zero(query - margin, a.channels * step);
    dkey = dvalue = dout = weights = dlogits = nullptr;
    if (has_gradient) {
      dkey = take(a.channels * map_size);
      dvalue = take(a.channels * map_size);
      dout = take(a.channels * step) + margin;
      weights = take(w.taps() * step) + margin;
      dlogits = take(w.taps() * step) + margin;
      zero(dkey, 2 * a.channels * map_size);
      zero(dout - margin, (a.channels + 2 * w.taps()) * step);
    }
  }

  // Copy the tile's keys, their position taken off, and values.
  void read(const float* keys, const float* values, const float* position) {
    for (size_t n = 0; n < row_size; ++n) locations[n] = location(columns.source[n], w.width);
    for (int c = 0; c < a.channels; ++c)
      for (int r = 0; r < tile.padded_rows; ++r) {
        const int y = reflected(first_source_row() + r, w.height);
        const size_t from = c * size + static_cast<size_t>(y) * w.width, to = c * map_size + r * row_size;
        pad_row(keys + from, w, tile, columns, key + to);
        pad_row(values + from, w, tile, columns, value + to);
        const float right = position[2 * c], down = position[2 * c + 1] * location(y, w.height);
        for (size_t n = 0; n < row_size; ++n) key[to + n] -= right * locations[n] + down;
      }
  }

  // Copy a row of the output's size into `to`, (channels, step), times `scale`: columns `apart` from each other.
  void read_row(const float* from, size_t from_size, int apart, float scale, float* to) const {
    for (int c = 0; c < a.channels; ++c)
      for (int x = 0; x < tile.columns; ++x) to[c * step + x] = from[c * from_size + x * apart] * scale;
  }

  void read_query(const float* queries, int y) const {
    const size_t first = static_cast<size_t>(y) * w.stride * w.width + tile.first_column * w.stride;
    read_row(queries + first, size, w.stride, scale(), query);
  }

  float scale() const { return 1.0f / __builtin_sqrtf(a.channels); }
};

size_t attention_scratch(const Attention& a, bool has_gradient) {
  const PaddedSizes of(a.window);
  size_t count = of.fixed + 2 * a.channels * of.map + of.row + 2 * a.window.taps() * LANES + a.channels * of.step;
  if (has_gradient) count += 2 * a.channels * of.map + (a.channels + 2 * a.window.taps()) * of.step;
  return count;
}

// One tile of one head of one image: unit (b * heads + head) * tiles + tile.
void attend(const Attention& a, const float* qkv, const float* position, float* out, int unit, float* memory) {
  const Window& w = a.window;
  const int head = unit / w.tiles();
  HeadTile at(a, unit % w.tiles(), false, memory);
  const Tile& tile = at.tile;
  const size_t part = a.heads * a.channels * at.size;
  const float* queries = qkv + head / a.heads * 3 * part + head % a.heads * a.channels * at.size;
  at.read(queries + part, queries + 2 * part, position);
  for (int y = 0; y < tile.rows; ++y) {
    at.read_query(queries, tile.first_row + y);
    const size_t place = static_cast<size_t>(tile.first_row + y) * w.out_width() + tile.first_column;
    const size_t top = y * w.stride * at.row_size;
    for (int x = 0; x < tile.columns; x += LANES) {
      float* weights = at.block;
      all_products(a, at.query + x, at.step, at.key + top + x, at.map_size, at.row_size, at.places, weights);
      const Vector share = 1.0f / softmax(w, weights);
      const int count = tile.columns - x;
      float* to = out + head * a.channels * at.out_size + place + x;
      all_weighted(a, weights, LANES, at.value + top + x, at.map_size, at.row_size, at.places,
                   [&](int c, Vector values) { store_first(to + c * at.out_size, values * share, count); });
    }
  }
}

// All tiles of one head of one image, one after another, as their windows overlap: unit b * heads + head. The gradient
// of the position is that of this head alone, (d, 2).
void attend_gradient(const Attention& a, const float* qkv, const float* position, const float* dout, float* dqkv,
                     float* dposition, int head, float* memory) {
  const Window& w = a.window;
  const size_t map_size = static_cast<size_t>(w.height) * w.width;
  const size_t out_size = static_cast<size_t>(w.out_height()) * w.out_width();
  const size_t part = a.heads * a.channels * map_size;
  const size_t first = head / a.heads * 3 * part + head % a.heads * a.channels * map_size;
  const float* queries = qkv + first;
  float *dqueries = dqkv + first, *dkeys = dqueries + part, *dvalues = dkeys + part;
  zero(dqueries, a.channels * map_size);
  zero(dkeys, a.channels * map_size);
  zero(dvalues, a.channels * map_size);

  for (int index = 0; index < w.tiles(); ++index) {
    HeadTile at(a, index, true, memory);
    const Tile& tile = at.tile;
    at.read(queries + part, queries + 2 * part, position);
    for (int y = 0; y < tile.rows; ++y) {
      const size_t place = static_cast<size_t>(tile.first_row + y) * w.out_width() + tile.first_column;
      const size_t top = y * w.stride * at.row_size;
      at.read_query(queries, tile.first_row + y);
      at.read_row(dout + head * a.channels * out_size + place, out_size, 1, 1.0f, at.dout);
      for (int x = 0; x < tile.columns; x += LANES) {
        const int count = tile.columns - x;
        // Beyond the map's end nothing is received.
        Vector is_there = {};
        for (int i = 0; i < smaller(count, LANES); ++i) is_there[i] = 1.0f;
        float *weights = at.block, *dweights = weights + w.taps() * LANES;
        all_products(a, at.query + x, at.step, at.key + top + x, at.map_size, at.row_size, at.places, weights);
        all_products(a, at.dout + x, at.step, at.value + top + x, at.map_size, at.row_size, at.places, dweights);
        const Vector share = is_there / softmax(w, weights);
        Vector delta = {};
        for (int t = 0; t < w.taps(); ++t) {
          const Vector weight = load(weights + t * LANES) * share;
          store(at.weights + t * at.step + x, weight);
          delta += weight * load(dweights + t * LANES);
        }
        for (int t = 0; t < w.taps(); ++t) {
          const Vector weight = load(at.weights + t * at.step + x);
          store(at.dlogits + t * at.step + x, weight * (load(dweights + t * LANES) - delta));
        }
        const size_t pixel = static_cast<size_t>(tile.first_row + y) * w.stride * w.width +
                             static_cast<size_t>(tile.first_column + x) * w.stride;
        all_weighted(a, at.dlogits + x, at.step, at.key + top + x, at.map_size, at.row_size, at.places,
                     [&](int c, Vector values) {
                       float* to = dqueries + c * map_size + pixel;
                       values *= at.scale();
                       for (int i = 0; i < smaller(count, LANES); ++i) to[i * w.stride] = values[i];
                     });
      }
      all_received(a, tile, at.dlogits, at.query, at.step, at.taps, at.dkey + top, at.map_size);
      all_received(a, tile, at.weights, at.dout, at.step, at.taps, at.dvalue + top, at.map_size);
    }
    for (int c = 0; c < a.channels; ++c)
      for (int r = 0; r < tile.padded_rows; ++r) {
        const int pixel = reflected(at.first_source_row() + r, w.height);
        const size_t to = c * map_size + static_cast<size_t>(pixel) * w.width, from = c * at.map_size + r * at.row_size;
        add_padded_row(at.dkey + from, w, tile, at.columns, dkeys + to);
        add_padded_row(at.dvalue + from, w, tile, at.columns, dvalues + to);
      }
  }

  for (int c = 0; c < a.channels; ++c) {
    float right = 0, down = 0;
    for (int y = 0; y < w.height; ++y) {
      const float* row = dkeys + c * map_size + static_cast<size_t>(y) * w.width;
      float sum = 0, moment = 0;
      for (int x = 0; x < w.width; ++x) {
        sum += row[x];
        moment += row[x] * location(x, w.width);
      }
      right -= moment;
      down -= sum * location(y, w.height);
    }
    dposition[head * 2 * a.channels + 2 * c] = right;
    dposition[head * 2 * a.channels + 2 * c + 1] = down;
  }
}

}  // namespace

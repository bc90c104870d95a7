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

constexpr int AT_ONCE = 7;  // accumulators that stay in registers

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
      const auto of = [&](auto function) {
        function(query, query_step, row, channel_size, places + j, a.channels, to);
      };
      switch (smaller(AT_ONCE, w.kernel - j)) {
        case 1:
          of(products<1>);
          break;
        case 2:
          of(products<2>);
          break;
        case 3:
          of(products<3>);
          break;
        case 4:
          of(products<4>);
          break;
        case 5:
          of(products<5>);
          break;
        case 6:
          of(products<6>);
          break;
        default:
          of(products<7>);
      }
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
          const auto of = [&](auto function) {
            function(w, rows, step, map + c * step + n, taps, phase, to, tile.row_size);
          };
          switch (smaller(AT_ONCE, w.kernel - i)) {
            case 1:
              of(received<1>);
              break;
            case 2:
              of(received<2>);
              break;
            case 3:
              of(received<3>);
              break;
            case 4:
              of(received<4>);
              break;
            case 5:
              of(received<5>);
              break;
            case 6:
              of(received<6>);
              break;
            default:
              of(received<7>);
          }
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

// What one head of one image needs at hand for a tile.
struct HeadTile {
  const Attention& a;
  Tile tile;
  size_t row_size, channel_size, map_size, out_size;
  int margin;                                       // zeros before each row that gradients look back into
  size_t row_step;                                  // such a row
  float *key, *value, *query, *block, *locations;   // forward
  float *dkey, *dvalue, *dout, *weights, *dlogits;  // and for the gradient
  float* next;
  int* columns_memory;
  int* places;
  Tap* taps;

  // `memory` holds what `attention_scratch` says.
  HeadTile(const Attention& attention, int index, bool has_gradient, float* memory)
      : a(attention), tile(a.window, index), next(memory) {
    const Window& w = a.window;
    row_size = tile.row_size;
    channel_size = row_size * tile.padded_rows;
    map_size = static_cast<size_t>(w.height) * w.width;
    out_size = static_cast<size_t>(w.out_height()) * w.out_width();
    margin = rounded_up(tile.reach);
    row_step = margin + tile.width;
    key = take(a.channels * channel_size);
    value = take(a.channels * channel_size);
    locations = take(row_size);
    query = take(a.channels * row_step) + margin;
    block = take(2 * w.taps() * LANES);
    columns_memory = reinterpret_cast<int*>(take(row_size));
    places = reinterpret_cast<int*>(take(w.kernel));
    taps = reinterpret_cast<Tap*>(take(2 * w.kernel));
    for (int j = 0; j < w.kernel; ++j) {
      taps[j] = tap_of(w, j);
      places[j] = taps[j].phase * tile.width + taps[j].place;
    }
    dkey = dvalue = dout = weights = dlogits = nullptr;
    if (has_gradient) {
      dkey = take(a.channels * channel_size);
      dvalue = take(a.channels * channel_size);
      dout = take(a.channels * row_step) + margin;
      weights = take(w.taps() * row_step) + margin;
      dlogits = take(w.taps() * row_step) + margin;
      zero(dkey, 2 * a.channels * channel_size);
      zero(dout - margin, (a.channels + 2 * w.taps()) * row_step);
    }
    zero(query - margin, a.channels * row_step);
  }

  float* take(size_t count) {
    float* memory = next;
    next += count;
    return memory;
  }

  static void zero(float* to, size_t count) { __builtin_memset(to, 0, count * sizeof(float)); }

  // Copy the tile's keys, their position taken off, and values.
  void read(const float* keys, const float* values, const float* position, const Columns& columns) {
    const Window& w = a.window;
    for (int n = 0; n < tile.row_size; ++n) locations[n] = location(columns.source[n], w.width);
    for (int c = 0; c < a.channels; ++c)
      for (int r = 0; r < tile.padded_rows; ++r) {
        const int y = reflected(tile.first_row * w.stride - w.padding() + r, w.height);
        const size_t from = c * map_size + static_cast<size_t>(y) * w.width, to = c * channel_size + r * row_size;
        pad_row(keys + from, w, tile, columns, key + to);
        pad_row(values + from, w, tile, columns, value + to);
        const float right = position[2 * c], down = position[2 * c + 1] * location(y, w.height);
        for (int n = 0; n < tile.row_size; ++n) key[to + n] -= right * locations[n] + down;
      }
  }

  // Copy a row of the output's size into `to`, (channels, row_step), times `scale`: columns `step` apart.
  void read_row(const float* from, size_t size, int step, float scale, float* to) const {
    for (int c = 0; c < a.channels; ++c)
      for (int x = 0; x < tile.columns; ++x) to[c * row_step + x] = from[c * size + x * step] * scale;
  }

  void read_query(const float* queries, int y) const {
    const Window& w = a.window;
    const size_t first = static_cast<size_t>(y) * w.stride * w.width + tile.first_column * w.stride;
    read_row(queries + first, map_size, w.stride, scale(), query);
  }

  float scale() const { return 1.0f / __builtin_sqrtf(a.channels); }
};

size_t attention_scratch(const Attention& a, bool has_gradient) {
  const Window& w = a.window;
  // The first tile is the largest.
  const Tile tile(w, 0);
  const size_t channel = static_cast<size_t>(tile.row_size) * tile.padded_rows;
  const size_t row = rounded_up(tile.reach) + tile.width;
  size_t count = 2 * a.channels * channel + a.channels * row + 2 * w.taps() * LANES + 2 * tile.row_size + 3 * w.kernel;
  if (has_gradient) count += 2 * a.channels * channel + (a.channels + 2 * w.taps()) * row;
  return count;
}

// One tile of one head of one image: unit (b * heads + head) * tiles + tile.
void attend(const Attention& a, const float* qkv, const float* position, float* out, int unit, float* memory) {
  const Window& w = a.window;
  const int head = unit / w.tiles();
  HeadTile at(a, unit % w.tiles(), false, memory);
  const Tile& tile = at.tile;
  const Columns columns(w, tile, reflected, at.columns_memory);
  const size_t part = a.heads * a.channels * at.map_size;
  const float* queries = qkv + head / a.heads * 3 * part + head % a.heads * a.channels * at.map_size;
  at.read(queries + part, queries + 2 * part, position, columns);
  for (int y = 0; y < tile.rows; ++y) {
    at.read_query(queries, tile.first_row + y);
    const size_t place = static_cast<size_t>(tile.first_row + y) * w.out_width() + tile.first_column;
    const size_t top = y * w.stride * at.row_size;
    for (int x = 0; x < tile.columns; x += LANES) {
      float* weights = at.block;
      all_products(a, at.query + x, at.row_step, at.key + top + x, at.channel_size, at.row_size, at.places, weights);
      const Vector share = 1.0f / softmax(w, weights);
      const int count = tile.columns - x;
      float* to = out + head * a.channels * at.out_size + place + x;
      all_weighted(a, weights, LANES, at.value + top + x, at.channel_size, at.row_size, at.places,
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
  HeadTile::zero(dqueries, a.channels * map_size);
  HeadTile::zero(dkeys, a.channels * map_size);
  HeadTile::zero(dvalues, a.channels * map_size);

  for (int index = 0; index < w.tiles(); ++index) {
    HeadTile at(a, index, true, memory);
    const Tile& tile = at.tile;
    const Columns columns(w, tile, reflected, at.columns_memory);
    at.read(queries + part, queries + 2 * part, position, columns);
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
        all_products(a, at.query + x, at.row_step, at.key + top + x, at.channel_size, at.row_size, at.places, weights);
        all_products(a, at.dout + x, at.row_step, at.value + top + x, at.channel_size, at.row_size, at.places,
                     dweights);
        const Vector share = is_there / softmax(w, weights);
        Vector delta = {};
        for (int t = 0; t < w.taps(); ++t) {
          const Vector weight = load(weights + t * LANES) * share;
          store(at.weights + t * at.row_step + x, weight);
          delta += weight * load(dweights + t * LANES);
        }
        for (int t = 0; t < w.taps(); ++t) {
          const Vector weight = load(at.weights + t * at.row_step + x);
          store(at.dlogits + t * at.row_step + x, weight * (load(dweights + t * LANES) - delta));
        }
        const size_t pixel = static_cast<size_t>(tile.first_row + y) * w.stride * w.width +
                             static_cast<size_t>(tile.first_column + x) * w.stride;
        all_weighted(a, at.dlogits + x, at.row_step, at.key + top + x, at.channel_size, at.row_size, at.places,
                     [&](int c, Vector values) {
                       float* to = dqueries + c * map_size + pixel;
                       values *= at.scale();
                       for (int i = 0; i < smaller(count, LANES); ++i) to[i * w.stride] = values[i];
                     });
      }
      all_received(a, tile, at.dlogits, at.query, at.row_step, at.taps, at.dkey + top, at.channel_size);
      all_received(a, tile, at.weights, at.dout, at.row_step, at.taps, at.dvalue + top, at.channel_size);
    }
    for (int c = 0; c < a.channels; ++c)
      for (int r = 0; r < tile.padded_rows; ++r) {
        const int pixel = reflected(tile.first_row * w.stride - w.padding() + r, w.height);
        const size_t to = c * map_size + static_cast<size_t>(pixel) * w.width,
                     from = c * at.channel_size + r * at.row_size;
        add_padded_row(at.dkey + from, w, tile, columns, dkeys + to);
        add_padded_row(at.dvalue + from, w, tile, columns, dvalues + to);
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

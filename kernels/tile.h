// SPDX-License-Identifier: Apache-2.0
// A tile: a part of the output map, and the pixels around it that it is made of.
//
// Both paths look at the same pixels: output (y, x) at input (stride * y + dilation * i, stride * x + dilation * j)
// less the padding, for i, j below `kernel`. A tile copies its part of the input, padded, so that each tap of
// neighbouring outputs is a vector of neighbouring numbers: with a stride, columns are dealt into `stride` phases, and
// column stride * n + phase stands at place n of its phase. What a pixel costs does not depend on the size of the map.

#pragma once

#include "shapes.h"
#include "vector.h"

namespace {

// Where padding by reflection finds pixel i of n: without repeating the edge, again and again where the map is smaller
// than the padding.
inline int reflected(int i, int n) {
  if (n == 1) return 0;
  const int period = 2 * (n - 1);
  i = i % period;
  if (i < 0) i += period;
  return i < n ? i : period - i;
}

// Where padding by zeros finds it; -1 for a zero.
inline int inside(int i, int n) { return i >= 0 && i < n ? i : -1; }

// A tap of a row: in which phase it lies, and how far into it.
struct Tap {
  int phase, place;
};

inline Tap tap_of(const Window& w, int j) { return {j * w.dilation % w.stride, j * w.dilation / w.stride}; }

struct Tile {
  int first_row, rows, first_column, columns;  // of the output
  int vectors;                                 // that a row of `columns` takes
  int reach;                                   // the furthest place of a tap
  int width;                                   // of one phase of one padded row
  int padded_rows;
  int row_size;  // all phases of one padded row

  // The `index`-th of those that `tiles(w)` counts.
  Tile(const Window& w, int index) {
    const int across = rounded_up_quotient(w.out_width(), TILE_COLUMNS);
    first_row = index / across * TILE_ROWS;
    first_column = index % across * TILE_COLUMNS;
    rows = smaller(TILE_ROWS, w.out_height() - first_row);
    columns = smaller(TILE_COLUMNS, w.out_width() - first_column);
    vectors = rounded_up_quotient(columns, LANES);
    reach = (w.kernel - 1) * w.dilation / w.stride;
    width = rounded_up(vectors * LANES + reach);
    padded_rows = (rows - 1) * w.stride + (w.kernel - 1) * w.dilation + 1;
    row_size = w.stride * width;
  }
};

// The part of the input that a tile is made of.
struct Region {
  int first_row, rows, first_column, columns;

  Region(const Window& w, const Tile& tile) {
    const int top = tile.first_row * w.stride - w.padding(), left = tile.first_column * w.stride - w.padding();
    first_row = top < 0 ? 0 : top;
    rows = smaller(top + tile.padded_rows, w.height) - first_row;
    first_column = left < 0 ? 0 : left;
    columns = smaller(left + tile.row_size, w.width) - first_column;
  }
};

// For each place of a padded row: the input's column. The middle is every stride-th column of the input, in order.
struct Columns {
  int* source;
  int begin[MOST_STRIDE], end[MOST_STRIDE];

  template <typename Padding>
  Columns(const Window& w, const Tile& tile, Padding padding, int* memory) : source(memory) {
    const int first = tile.first_column * w.stride - w.padding();
    for (int phase = 0; phase < w.stride; ++phase) {
      int* places = source + phase * tile.width;
      begin[phase] = end[phase] = 0;
      for (int n = 0; n < tile.width; ++n) {
        const int column = first + n * w.stride + phase;
        places[n] = padding(column, w.width);
        if (column < 0) begin[phase] = end[phase] = n + 1;
        if (column >= 0 && column < w.width) end[phase] = n + 1;
      }
    }
  }
};

// Ask for numbers that will be read soon. In large maps the rows of a tile lie far apart, and the CPU foresees none.
inline void fetch(const float* row, int count) {
  for (int n = 0; n < count; n += 16) __builtin_prefetch(row + n);
}

// Copy the columns of a row of the input into its padded form, and none of the padding.
inline void copy_inside(const float* row, const Window& w, const Tile& tile, const Columns& columns, float* to) {
  for (int phase = 0; phase < w.stride; ++phase, to += tile.width) {
    const int begin = columns.begin[phase], end = columns.end[phase];
    if (begin >= end) continue;
    const float* middle = row + columns.source[phase * tile.width + begin];
    fetch(middle + 3 * w.width, (end - begin) * w.stride);
    if (w.stride == 1)
      __builtin_memcpy(to + begin, middle, sizeof(float) * (end - begin));
    else
      for (int n = begin; n < end; ++n) to[n] = middle[(n - begin) * w.stride];
  }
}

// And the padding too, where that is made of columns.
inline void pad_row(const float* row, const Window& w, const Tile& tile, const Columns& columns, float* to) {
  copy_inside(row, w, tile, columns, to);
  for (int phase = 0; phase < w.stride; ++phase, to += tile.width) {
    const int* source = columns.source + phase * tile.width;
    const int begin = columns.begin[phase], end = columns.end[phase];
    for (int n = 0; n < begin; ++n) to[n] = row[source[n]];
    for (int n = end > begin ? end : begin; n < tile.width; ++n) to[n] = row[source[n]];
  }
}

// The other way around, for gradients: add each place of a padded row to the column it came from.
inline void add_padded_row(const float* padded, const Window& w, const Tile& tile, const Columns& columns, float* row) {
  const int used = tile.columns + tile.reach;
  for (int phase = 0; phase < w.stride; ++phase, padded += tile.width) {
    const int* source = columns.source + phase * tile.width;
    const int begin = smaller(columns.begin[phase], used), end = smaller(columns.end[phase], used);
    for (int n = 0; n < begin; ++n)
      if (source[n] >= 0) row[source[n]] += padded[n];
    if (begin < end) {
      float* middle = row + source[begin];
      for (int n = begin; n < end; ++n) middle[(n - begin) * w.stride] += padded[n];
    }
    for (int n = end > begin ? end : begin; n < used; ++n)
      if (source[n] >= 0) row[source[n]] += padded[n];
  }
}

// How many floats a tile of a window needs: for its padded map, a row of that, a row of the output's size with zeros
// around it, and for what `PaddedTile` itself keeps. The first tile is the largest.
struct PaddedSizes {
  size_t map, row, step, fixed;

  explicit PaddedSizes(const Window& w) {
    const Tile tile(w, 0);
    row = tile.row_size;
    map = row * tile.padded_rows;
    step = rounded_up(tile.reach) + tile.width;
    fixed = row + 3 * w.kernel;
  }
};

// A tile with its memory, where the columns and taps are that it looks at.
struct PaddedTile {
  const Window& w;
  const Tile tile;
  float* next;                      // memory that is left
  const size_t row_size, map_size;  // of what is padded
  const size_t size, out_size;      // of the whole input, the whole output
  const int margin;                 // zeros before a row that gradients look back into
  const size_t step;                // from such a row to the next
  const Columns columns;
  int* const places;  // of the taps of a row
  Tap* const taps;

  template <typename Padding>
  PaddedTile(const Window& window, int index, Padding padding, float* memory)
      : w(window),
        tile(window, index),
        next(memory),
        row_size(tile.row_size),
        map_size(row_size * tile.padded_rows),
        size(static_cast<size_t>(w.height) * w.width),
        out_size(static_cast<size_t>(w.out_height()) * w.out_width()),
        margin(rounded_up(tile.reach)),
        step(margin + tile.width),
        columns(w, tile, padding, reinterpret_cast<int*>(take(row_size))),
        places(reinterpret_cast<int*>(take(w.kernel))),
        taps(reinterpret_cast<Tap*>(take(2 * w.kernel))) {
    for (int j = 0; j < w.kernel; ++j) {
      taps[j] = tap_of(w, j);
      places[j] = taps[j].phase * tile.width + taps[j].place;
    }
  }

  float* take(size_t count) {
    float* memory = next;
    next += count;
    return memory;
  }

  // Where the first padded row lies in the input.
  int first_source_row() const { return tile.first_row * w.stride - w.padding(); }
};

}  // namespace

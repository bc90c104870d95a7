// SPDX-License-Identifier: Apache-2.0
// What both sides of a call know: the sizes of a window over a map, and into how many parts the work falls.

#pragma once

#include <cstddef>

inline int rounded_up_quotient(int count, int size) { return (count + size - 1) / size; }

// A tile and what surrounds it stay in the cache of a core.
constexpr int TILE_ROWS = 16;
constexpr int TILE_COLUMNS = 128;
constexpr int MOST_STRIDE = 8;

// How many numbers of a long row one thread takes at a time, and how often.
constexpr size_t RUN = 1 << 14;
inline int runs_of(size_t size) { return static_cast<int>((size + RUN - 1) / RUN); }

struct Window {
  int height, width;             // of the input
  int kernel, stride, dilation;  // kernel: odd

  int out_height() const { return rounded_up_quotient(height, stride); }
  int out_width() const { return rounded_up_quotient(width, stride); }
  int padding() const { return kernel / 2 * dilation; }
  int taps() const { return kernel * kernel; }
  int tiles() const {
    const int down = rounded_up_quotient(out_height(), TILE_ROWS);
    const int across = rounded_up_quotient(out_width(), TILE_COLUMNS);
    return down * across;
  }
};

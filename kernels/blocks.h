// SPDX-License-Identifier: Apache-2.0
// Sums of products, a block of them at a time: as many as fit in registers.

#pragma once

#include <cstddef>

#include "vector.h"

namespace {

// For N sums of products at X vectors, `step` apart: sums[i, x] += factors[i * factor_step] * values[x].
template <int N, int X>
inline void add_products(const float* factors, size_t factor_step, const float* values, size_t step,
                         Vector (&sums)[N][X]) {
  Vector value[X];
#pragma GCC unroll 3
  for (int x = 0; x < X; ++x) value[x] = load(values + x * step);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 3
    for (int x = 0; x < X; ++x) sums[i][x] += factors[i * factor_step] * value[x];
}

// So many sums at so many vectors stay in registers.
template <int N, int X>
struct Block {
  static constexpr int count = N, vectors = X;
};

constexpr int MOST_SUMS = 6;  // at two vectors each

// Call `function` with blocks of X vectors until all of `count` sums are done, with about as many sums in each. Not
// inline: with all of them in one function, GCC runs out of registers for each.
template <int X, typename Function>
__attribute__((noinline)) void blocks_of(int count, int place, const Function& function) {
  for (int first = 0; first < count;) {
    const int left = count - first, blocks = rounded_up_quotient(left, MOST_SUMS),
              size = rounded_up_quotient(left, blocks);
    switch (size) {
      case 1: function(Block<1, X>(), first, place); break;
      case 2: function(Block<2, X>(), first, place); break;
      case 3: function(Block<3, X>(), first, place); break;
      case 4: function(Block<4, X>(), first, place); break;
      case 5: function(Block<5, X>(), first, place); break;
      default: function(Block<6, X>(), first, place);
    }
    first += size;
  }
}

// Call `function(block, first, place)` until all of `count` sums are done at all of `vectors` vectors: some of these at
// a time, as that asks for fewer loads, and few sums at one vector would wait for each other.
template <typename Function>
inline void for_blocks(int count, int vectors, const Function& function) {
  int x = 0;
  if (count == 3)
    for (; x + 3 <= vectors; x += 3) function(Block<3, 3>(), 0, x * LANES);
  for (; x + 2 <= vectors; x += 2) blocks_of<2>(count, x * LANES, function);
  if (x < vectors) blocks_of<1>(count, x * LANES, function);
}

// Call `function(block, i, j)` until all of `rows` x `columns` sums are done, 4 x 3 at a time.
template <typename Function>
inline void for_pairs(int rows, int columns, const Function& function) {
  for (int j = 0; j < columns; j += 3)
    for (int i = 0; i < rows; i += i + 4 <= rows ? 4 : 1) {
      const bool is_high = i + 4 <= rows;
      switch (smaller(3, columns - j)) {
        case 3: is_high ? function(Block<4, 3>(), i, j) : function(Block<1, 3>(), i, j); break;
        case 2: is_high ? function(Block<4, 2>(), i, j) : function(Block<1, 2>(), i, j); break;
        default: is_high ? function(Block<4, 1>(), i, j) : function(Block<1, 1>(), i, j);
      }
    }
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
// A pass over long rows of numbers, run by run.

#pragma once

#include "shapes.h"
#include "vector.h"

namespace {

// Call `function(i, count)` for the numbers i to i + count of run `run`: a vector of them, or what is left.
template <typename Function>
inline void for_run(int run, size_t size, const Function& function) {
  const size_t first = run * RUN, end = first + RUN < size ? first + RUN : size;
  for (size_t i = first; i < end; i += LANES) function(i, end - i < LANES ? static_cast<int>(end - i) : LANES);
}

}  // namespace

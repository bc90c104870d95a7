// SPDX-License-Identifier: Apache-2.0
// The weighted sum of the two paths (paper, section 4.2) in one pass over them, and its gradient in another.
//
//     out = alpha * a + beta * b

#pragma once

#include "kernels.h"
#include "vector.h"

namespace {

// Call `function(i, count)` for numbers i to i + count, a vector of them or what is left.
template <typename Function>
inline void for_run(size_t first, size_t size, const Function& function) {
  const size_t end = first + SUM_RUN < size ? first + SUM_RUN : size;
  for (size_t i = first; i < end; i += LANES) function(i, end - i < LANES ? static_cast<int>(end - i) : LANES);
}

// Unit `unit` of `Sum::units`: a run of numbers.
void weighted_sum(const Sum& s, const float* a, const float* b, float* out, int unit) {
  for_run(unit * SUM_RUN, s.size, [&](size_t i, int count) {
    store_first(out + i, s.alpha * load_first(a + i, count) + s.beta * load_first(b + i, count), count);
  });
}

// And this run's part of the gradients of alpha and beta.
void weighted_sum_gradient(const Sum& s, const float* a, const float* b, const float* dout, float* da, float* db,
                           float* dalpha, float* dbeta, int unit) {
  Vector of_alpha = {}, of_beta = {};
  for_run(unit * SUM_RUN, s.size, [&](size_t i, int count) {
    const Vector gradient = load_first(dout + i, count);
    of_alpha += gradient * load_first(a + i, count);
    of_beta += gradient * load_first(b + i, count);
    store_first(da + i, s.alpha * gradient, count);
    store_first(db + i, s.beta * gradient, count);
  });
  *dalpha = sum_of(of_alpha);
  *dbeta = sum_of(of_beta);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
// The weighted sum of the two paths (paper, section 4.2) in one pass over them, and its gradient in another.
//
//     out = alpha * a + beta * b

#pragma once

#include "kernels.h"
#include "runs.h"
#include "vector.h"

namespace {

void weighted_sum(const Sum& s, const float* a, const float* b, float* out, int run) {
  for_run(run, s.size, [&](size_t i, int count) {
    store_first(out + i, s.alpha * load_first(a + i, count) + s.beta * load_first(b + i, count), count);
  });
}

// And this run's part of the gradients of alpha and beta.
void weighted_sum_gradient(const Sum& s, const float* a, const float* b, const float* dout, float* da, float* db,
                           float* dalpha, float* dbeta, int run) {
  Vector of_alpha = {}, of_beta = {};
  for_run(run, s.size, [&](size_t i, int count) {
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

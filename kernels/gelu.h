// SPDX-License-Identifier: Apache-2.0
// The exact GELU in one pass, and its gradient in another.
//
//     out = x * P(a standard normal variable < x)

#pragma once

#include "kernels.h"
#include "runs.h"
#include "vector.h"

namespace {

// The probability; coefficients as in src/ops/gelu.py, where they are explained.
inline Vector normal_distribution(Vector x) {
  const Vector square = x * x;
  Vector logit = square * 3.627859038846849e-09f - 2.6756660065049034e-07f;
  logit = logit * square + 7.948144825042711e-06f;
  logit = logit * square - 1.1054679790384229e-04f;
  logit = logit * square - 6.605331952552594e-05f;
  logit = logit * square + 7.266829812115530e-02f;
  logit = logit * square + 1.595768536857321f;
  logit = logit * x;
  const Vector small = exponential(logit > 0.f ? -logit : logit);
  return (logit > 0.f ? all(1.f) : small) / (small + 1.f);
}

void gelu(size_t size, const float* x, float* out, int run) {
  for_run(run, size, [&](size_t i, int count) {
    const Vector values = load_first(x + i, count);
    store_first(out + i, values * normal_distribution(values), count);
  });
}

void gelu_gradient(size_t size, const float* x, const float* dout, float* dx, int run) {
  for_run(run, size, [&](size_t i, int count) {
    const Vector values = load_first(x + i, count);
    const Vector density = exponential(values * values * -0.5f) * 0.3989422804014327f;
    const Vector slope = normal_distribution(values) + values * density;
    store_first(dx + i, load_first(dout + i, count) * slope, count);
  });
}

}  // namespace

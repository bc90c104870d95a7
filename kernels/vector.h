// SPDX-License-Identifier: Apache-2.0
// Vectors of neighbouring pixels of a row, in the compiler's own vector type, and the exponential of one.
//
// Everything here is private to the file that includes it: each is compiled once for each set of instructions, and the
// linker must not take a function of one set for that of another. For the same reason these files use no templates of
// the standard library.

#pragma once

#include <cstddef>

#include "shapes.h"

namespace {

// The tests choose 16 on CPUs without AVX-512 too.
#ifndef WIDTH
#ifdef __AVX512F__
#define WIDTH 16
#else
#define WIDTH 8
#endif
#endif
constexpr int LANES = WIDTH;

// aligned(4): wherever a float lies.
typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int Whole __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

inline int smaller(int a, int b) { return a < b ? a : b; }
inline int rounded_up(int n) { return rounded_up_quotient(n, LANES) * LANES; }
inline void zero(float* to, size_t count) { __builtin_memset(to, 0, count * sizeof(float)); }

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector values) { *reinterpret_cast<Vector*>(to) = values; }

// Only the first `count`, and zeros.
inline Vector load_first(const float* from, int count) {
  if (count >= LANES) return load(from);
  Vector values = {};
  for (int i = 0; i < count; ++i) values[i] = from[i];
  return values;
}

// Of `values`, only the first `count`.
inline void store_first(float* to, Vector values, int count) {
  if (count >= LANES) return store(to, values);
  for (int i = 0; i < count; ++i) to[i] = values[i];
}

inline Vector all(float value) { return Vector{} + value; }
inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }

inline float sum_of(Vector values) {
  float sum = 0;
  for (int i = 0; i < LANES; ++i) sum += values[i];
  return sum;
}

// e^x for x <= 0, to some 2e-7 of the result: 2^whole * 2^rest, and 2^rest by its series.
inline Vector exponential(Vector x) {
  const Vector turns = (x < -87.0f ? all(-87.0f) : x) * 1.44269504f;  // NaN stays
  const Vector whole = (turns + 12582912.0f) - 12582912.0f;           // 1.5 * 2^23: adding it rounds to whole numbers
  const Vector rest = turns - whole;
  Vector series = rest * 1.5403530e-4f + 1.3333558e-3f;
  series = series * rest + 9.6181291e-3f;
  series = series * rest + 5.5504109e-2f;
  series = series * rest + 2.4022651e-1f;
  series = series * rest + 6.9314718e-1f;
  series = series * rest + 1.0f;
  const Whole exponent = (__builtin_convertvector(whole, Whole) + 127) << 23;
  return series * reinterpret_cast<const Vector&>(exponent);
}

}  // namespace

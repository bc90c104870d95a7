// SPDX-License-Identifier: Apache-2.0
// Linear layer and weight of the convolution path multiplied out: one convolution of the pieces as they are.
//
//     product[c, p, o] = sum over t of layer[t, p] * weight[c, t, o]          for output c and offset o
//
// A few thousand numbers to a map of many more: no time to save here.

#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

struct Product {
  int channels, maps, pieces, taps;  // of c, t, p and o

  std::vector<float> of(const float* layer, const float* weight) const {
    std::vector<float> product(static_cast<size_t>(channels) * pieces * taps, 0.f);
    for_all([&](size_t l, size_t w, size_t p) { product[p] += layer[l] * weight[w]; });
    return product;
  }

  // Fill the gradients of layer and weight by that of their product.
  void gradient(const float* layer, const float* weight, const float* dproduct, float* dlayer, float* dweight) const {
    std::fill_n(dlayer, static_cast<size_t>(maps) * pieces, 0.f);
    std::fill_n(dweight, static_cast<size_t>(channels) * maps * taps, 0.f);
    for_all([&](size_t l, size_t w, size_t p) {
      dlayer[l] += weight[w] * dproduct[p];
      dweight[w] += layer[l] * dproduct[p];
    });
  }

 private:
  // Call `function` with the places of each term in layer, weight and product.
  template <typename Function>
  void for_all(const Function& function) const {
    for (int c = 0; c < channels; ++c)
      for (int t = 0; t < maps; ++t)
        for (int p = 0; p < pieces; ++p) {
          const size_t of_layer = static_cast<size_t>(t) * pieces + p;
          const size_t of_weight = (static_cast<size_t>(c) * maps + t) * taps;
          const size_t of_product = (static_cast<size_t>(c) * pieces + p) * taps;
          for (int o = 0; o < taps; ++o) function(of_layer, of_weight + o, of_product + o);
        }
  }
};

// SPDX-License-Identifier: Apache-2.0
// Non-maximum suppression: of boxes from the best to the worst one stays unless one that stays already overlaps it.

#pragma once

#include "kernels.h"
#include "vector.h"

namespace {

size_t suppression_scratch(const Suppression& s) { return static_cast<size_t>(5) * (s.most + LANES); }

// Of an image: boxes (N, 4), x1, y1, x2, y2, scores (N), falling, below 0 from where there are no more; stays (N): 1 or
// 0. Those that stay lie in `memory` side by side, so that a box is compared with a vector of them at once.
void suppress(const Suppression& s, const float* boxes, const float* scores, float* stays, float* memory) {
  const size_t row = s.most + LANES;
  float *x1 = memory, *y1 = x1 + row, *x2 = y1 + row, *y2 = x2 + row, *areas = y2 + row;
  for (size_t i = 0; i < 5 * row; ++i) memory[i] = 0;
  int count = 0;
  for (int i = 0; i < s.boxes; ++i) {
    const float* box = boxes + static_cast<size_t>(4) * i;
    stays[i] = 0;
    if (count == s.most || scores[i] < 0) continue;
    const float area = (box[2] - box[0]) * (box[3] - box[1]);
    bool is_free = true;
    for (int k = 0; k < count && is_free; k += LANES) {
      const Vector right = -larger(-load(x2 + k), all(-box[2])), below = -larger(-load(y2 + k), all(-box[3]));
      const Vector width = larger(right - larger(load(x1 + k), all(box[0])), all(0));
      const Vector height = larger(below - larger(load(y1 + k), all(box[1])), all(0));
      const Vector shared = width * height;
      const Whole is_over = shared / (load(areas + k) + area - shared) > all(s.iou);
      for (int lane = 0; lane < LANES; ++lane) is_free = is_free && !is_over[lane];
    }
    if (!is_free) continue;
    stays[i] = 1;
    x1[count] = box[0], y1[count] = box[1], x2[count] = box[2], y2[count] = box[3], areas[count] = area;
    ++count;
  }
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include "scale.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace {
// Weight of a pixel `x` pixels from where the resized one lies.
double Weight(double x, bool cubic) {
  if (!cubic) {
    return 1 - x;
  }
  return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : ((2.5 - 0.5 * x) * x - 4) * x + 2;
}

// uint8 (N, ...) -> (count, ...): rows from `start` on of the `length` that Pillow's resize would make.
cv::Mat Resized(const cv::Mat &image, int length, int start, int count, bool cubic) {
  const double scale = static_cast<double>(image.rows) / length;
  // A kernel as wide as what becomes a pixel: OpenCV's own resize skips rows.
  const double stretch = std::max(scale, 1.0), reach = stretch * (cubic ? 2 : 1);
  // Black, where a smaller image has no rows.
  cv::Mat result = cv::Mat::zeros(count, image.cols, image.type());
  for (int i = std::max(-start, 0); i < std::min(count, length - start); ++i) {
    const double centre = (start + i + 0.5) * scale;
    const int first = std::max(static_cast<int>(centre - reach + 0.5), 0);
    const int last = std::min(static_cast<int>(centre + reach + 0.5), image.rows);
    std::vector<double> weights;
    for (int k = first; k < last; ++k) {
      weights.push_back(Weight(std::abs(k + 0.5 - centre) / stretch, cubic));
    }
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    // Pillow's numbers have 22 bits behind the point: so that halves are rounded to the same side.
    std::vector<int32_t> row(static_cast<size_t>(image.cols) * image.channels(), 1 << 21);
    for (int k = first; k < last; ++k) {
      const auto weight = static_cast<int32_t>(std::lround(weights[k - first] / sum * (1 << 22)));
      const uint8_t *pixel = image.ptr(k);
      for (auto &value : row) {
        value += weight * *pixel++;
      }
    }
    std::transform(row.begin(), row.end(), result.ptr(i), [](int value) { return std::clamp(value >> 22, 0, 255); });
  }
  return result;
}

// Where `side` pixels in the middle of `length` begin, rounded down: below 0 where they are more.
int Middle(int64_t length, int side) { return static_cast<int>(std::floor((length - side) / 2.0)); }
}  // namespace

cv::Mat ScaledAndCropped(cv::Mat image, const Card &card) {
  const double shorter = std::min(card.height, card.width);
  int64_t height = std::lrint(card.height * card.resize / shorter);
  int64_t width = std::lrint(card.width * card.resize / shorter);
  if (image.cols * height >= image.rows * width) {
    width = image.cols * height / image.rows;
  } else {
    height = image.rows * width / image.cols;
  }
  const auto scale_width = [&] {
    image = Resized(image.t(), width, Middle(width, card.width), card.width, card.bicubic).t();
  };
  // As Pillow: the width first, but where the height loses more than twice as much.
  const bool height_first = image.rows - height > std::max<int64_t>(2 * (image.cols - width), 0);
  if (!height_first) {
    scale_width();
  }
  image = Resized(image, height, Middle(height, card.height), card.height, card.bicubic);
  if (height_first) {
    scale_width();
  }
  return image;
}

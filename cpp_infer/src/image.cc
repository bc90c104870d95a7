// SPDX-License-Identifier: Apache-2.0
#include "image.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "error.h"

#ifdef WITH_OPENCV
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#endif

namespace {
std::vector<uint8_t> ReadBytes(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) {
    throw Error("cannot read image " + path);
  }
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

#ifdef WITH_OPENCV
// Return uint8 (S, S, C), channels as R, G, B.
cv::Mat Cropped(const std::string &path, const Card &card) {
  const auto bytes = ReadBytes(path);
  cv::Mat image;
  if (!bytes.empty()) {
    image = cv::imdecode(bytes, cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
  }
  if (image.empty()) {
    throw Error("image " + path + " is damaged, or of a type that OpenCV does not read");
  }
  cv::cvtColor(image, image, card.channels == 1 ? cv::COLOR_BGR2GRAY : cv::COLOR_BGR2RGB);
  const int shorter = std::min(image.rows, image.cols);
  const cv::Size size(static_cast<int64_t>(image.cols) * card.resize / shorter,
                      static_cast<int64_t>(image.rows) * card.resize / shorter);
  cv::resize(image, image, size, 0, 0, card.bicubic ? cv::INTER_CUBIC : cv::INTER_LINEAR);
  const int side = card.image_size;
  return image(cv::Rect((image.cols - side) / 2, (image.rows - side) / 2, side, side)).clone();
}

std::vector<uint8_t> Decode(const std::string &path, const Card &card) {
  const cv::Mat pixels = Cropped(path, card);
  if (card.takes_pixels) {
    return {pixels.datastart, pixels.dataend};
  }
  std::vector<uint8_t> bytes(card.ImageBytes());
  auto *value = reinterpret_cast<float *>(bytes.data());
  for (int channel = 0; channel < card.channels; ++channel) {
    const float mean = 255 * card.mean[channel], std = 255 * card.std[channel];
    for (const uint8_t *pixel = pixels.datastart + channel; pixel < pixels.dataend; pixel += card.channels) {
      *value++ = (*pixel - mean) / std;
    }
  }
  return bytes;
}
#else
std::vector<uint8_t> Decode(const std::string &path, const Card &) {
  throw Error("image " + path + " is no .bin file, and this program was built without OpenCV; install it, build again");
}
#endif
}  // namespace

std::vector<uint8_t> LoadImage(const std::string &path, const Card &card) {
  if (std::filesystem::path(path).extension() != ".bin") {
    return Decode(path, card);
  }
  auto bytes = ReadBytes(path);
  if (bytes.size() != card.ImageBytes()) {
    throw Error("image " + path + " has " + std::to_string(bytes.size()) + " bytes but the model takes " +
                std::to_string(card.ImageBytes()) + " for an image");
  }
  return bytes;
}

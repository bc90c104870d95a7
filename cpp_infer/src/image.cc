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

#include "scale.h"
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
// Return (h, w, 3) as B, G, R of a file of a type, and of 8 bits a channel, that the training too reads.
cv::Mat Decoded(const std::string &path, bool turn) {
  const auto bytes = ReadBytes(path);
  std::string head(25, '\0');
  std::copy_n(bytes.begin(), std::min(bytes.size(), head.size()), head.begin());
  const auto has = [&head](const std::string &text, size_t at = 0) { return head.compare(at, text.size(), text) == 0; };
  const bool is_png = has("\x89PNG"), is_webp = has("RIFF") && has("WEBP", 8);
  if (!is_png && !is_webp && !has("\xff\xd8\xff") && !has("BM")) {
    throw Error("image " + path + " is not a JPEG, PNG, BMP or WebP image; convert it");
  }
  if (is_png && head[24] == 16) {
    throw Error("image " + path + " has 16 bits a channel, of which 8 would be lost; convert it to 8 bits by the " +
                "range of its values, or the like");
  }
  cv::Mat image;
  try {
    image = cv::imdecode(bytes, cv::IMREAD_COLOR | (turn ? 0 : cv::IMREAD_IGNORE_ORIENTATION));
  } catch (const cv::Exception &) {
  }
  if (image.empty()) {
    throw Error("image " + path + " is damaged, or of a type that OpenCV does not read");
  }
  return image;
}

std::vector<uint8_t> Decode(const std::string &path, const Card &card) {
  cv::Mat pixels = ScaledAndCropped(Decoded(path, card.turn), card);
  cv::cvtColor(pixels, pixels, card.channels == 1 ? cv::COLOR_BGR2GRAY : cv::COLOR_BGR2RGB);
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

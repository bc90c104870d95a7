// SPDX-License-Identifier: Apache-2.0
#include "card.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "error.h"

namespace {
void Check(bool right, const std::string &what) {
  if (!right) {
    throw Error(what);
  }
}

Card Parse(const nlohmann::json &json) {
  const auto task = json.value("task", "classification");
  Check(task == "classification", "task is " + task + ", and this program classifies");
  const auto &spec = json.at("preprocessing");
  Card card;
  // One number in the cards of earlier exports, which have no orientation.
  const auto &size = spec.at("image_size");
  (size.is_array() ? size.at(0) : size).get_to(card.height);
  (size.is_array() ? size.at(1) : size).get_to(card.width);
  spec.at("resize").get_to(card.resize);
  spec.at("in_channels").get_to(card.channels);
  spec.at("mean").get_to(card.mean);
  spec.at("std").get_to(card.std);
  const auto orientation = spec.value("orientation", "ignore");
  card.turn = orientation == "apply";
  const auto interpolation = spec.at("interpolation").get<std::string>();
  card.bicubic = interpolation == "bicubic";
  card.takes_pixels = json.at("input").at("dtype") == "uint8";
  card.gives_probabilities = json.at("output").at("name") == "probabilities";
  json.at("labels").get_to(card.labels);

  Check(card.bicubic || interpolation == "bilinear", "interpolation is '" + interpolation + "'");
  Check(card.turn || orientation == "ignore", "orientation is '" + orientation + "'");
  Check(card.channels == 1 || card.channels == 3, "in_channels is " + std::to_string(card.channels));
  Check(std::min({card.height, card.width, card.resize}) >= 1, "image_size or resize is smaller than 1");
  const auto channels = static_cast<size_t>(card.channels);
  Check(card.mean.size() == channels && card.std.size() == channels, "mean and std are not one for each channel");
  Check(!card.labels.empty(), "labels are missing");
  return card;
}
}  // namespace

Card Card::Read(const std::string &path) {
  std::ifstream file(path);
  if (!file) {
    throw Error("cannot read card " + path + ", the .json that was exported with the model");
  }
  try {
    return Parse(nlohmann::json::parse(file));
  } catch (const nlohmann::json::exception &error) {
    throw Error("card " + path + " cannot be used (" + error.what() + "); export again");
  } catch (const Error &error) {
    throw Error("card " + path + ": " + error.what() + "; mend it, or export again");
  }
}

size_t Card::ImageBytes() const {
  const auto values = static_cast<size_t>(height) * width * channels;
  return values * (takes_pixels ? sizeof(uint8_t) : sizeof(float));
}

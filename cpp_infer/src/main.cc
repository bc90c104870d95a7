// SPDX-License-Identifier: Apache-2.0
// Classify images by a model that MindSpore Lite's converter made of an exported ONNX file; one JSON object a line.

#include <getopt.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "card.h"
#include "error.h"
#include "image.h"
#include "network.h"

namespace {
constexpr auto kUsage =
    "usage: acmix_infer --model FILE.mindir --card FILE.onnx.json [--topk K] [--device_target CPU|Ascend]\n"
    "                   [--device_id N] [--threads N] IMAGE...\n";

struct Arguments {
  std::string model, card, device = "CPU";
  int topk = 5, device_id = 0, threads = 2;
  std::vector<std::string> images;
};

int ParseNumber(const std::string &name, const std::string &text, int least) {
  size_t read = 0;
  int number = least - 1;
  try {
    number = std::stoi(text, &read);
  } catch (const std::logic_error &) {
  }
  if (read != text.size() || number < least) {
    throw Error("--" + name + " is '" + text + "' but takes a number from " + std::to_string(least));
  }
  return number;
}

Arguments Parse(int argc, char **argv) {
  const option options[] = {
      {"model", required_argument, nullptr, 'm'},     {"card", required_argument, nullptr, 'c'},
      {"topk", required_argument, nullptr, 'k'},      {"device_target", required_argument, nullptr, 'd'},
      {"device_id", required_argument, nullptr, 'i'}, {"threads", required_argument, nullptr, 't'},
      {"help", no_argument, nullptr, 'h'},            {nullptr, 0, nullptr, 0}};
  Arguments arguments;
  opterr = 0;
  for (int name; (name = getopt_long(argc, argv, ":", options, nullptr)) != -1;) {
    switch (name) {
      case 'm':
        arguments.model = optarg;
        break;
      case 'c':
        arguments.card = optarg;
        break;
      case 'k':
        arguments.topk = ParseNumber("topk", optarg, 1);
        break;
      case 'd':
        arguments.device = optarg;
        break;
      case 'i':
        arguments.device_id = ParseNumber("device_id", optarg, 0);
        break;
      case 't':
        arguments.threads = ParseNumber("threads", optarg, 1);
        break;
      case 'h':
        std::cout << kUsage;
        std::exit(0);
      case ':':
        throw Error(std::string(argv[optind - 1]) + " takes a value");
      default:
        throw Error(std::string(argv[optind - 1]) + " is unknown; see --help");
    }
  }
  arguments.images.assign(argv + optind, argv + argc);
  if (arguments.model.empty() || arguments.card.empty() || arguments.images.empty()) {
    throw Error("--model, --card and an image are needed; see --help");
  }
  if (arguments.device != "CPU" && arguments.device != "Ascend") {
    throw Error("--device_target is '" + arguments.device + "' but takes CPU or Ascend");
  }
  return arguments;
}

// Return the line of one image: its `topk` most probable classes, the first of equals first.
std::string Line(const std::string &path, const float *logits, const Card &card, size_t topk) {
  const size_t classes = card.labels.size();
  std::vector<double> probabilities(logits, logits + classes);
  if (!card.gives_probabilities) {
    const double largest = *std::max_element(logits, logits + classes);
    double sum = 0;
    for (auto &value : probabilities) {
      sum += value = std::exp(value - largest);
    }
    for (auto &value : probabilities) {
      value /= sum;
    }
  }
  std::vector<size_t> order(classes);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return probabilities[a] > probabilities[b]; });
  order.resize(std::min(topk, classes));
  nlohmann::ordered_json line = {{"image", path}, {"topk", nlohmann::ordered_json::array()}};
  for (const size_t k : order) {
    line["topk"].push_back({{"label", card.labels[k]}, {"probability", probabilities[k]}});
  }
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void Classify(const Arguments &arguments) {
  const Card card = Card::Read(arguments.card);
  if (!std::ifstream(arguments.model)) {
    throw Error("cannot read model " + arguments.model);
  }
  Network network(arguments.model, arguments.device, arguments.device_id, arguments.threads);
  const size_t batch_size = network.BatchSize(), image_bytes = card.ImageBytes(), classes = card.labels.size();
  if (network.BatchBytes() != batch_size * image_bytes) {
    throw Error("model " + arguments.model + " takes " + std::to_string(network.BatchBytes()) + " bytes but card " +
                arguments.card + " describes " + std::to_string(batch_size * image_bytes));
  }
  for (size_t start = 0; start < arguments.images.size(); start += batch_size) {
    const size_t count = std::min(batch_size, arguments.images.size() - start);
    std::vector<uint8_t> batch(batch_size * image_bytes);
    for (size_t i = 0; i < count; ++i) {
      const auto image = LoadImage(arguments.images[start + i], card);
      std::copy(image.begin(), image.end(), batch.begin() + i * image_bytes);
    }
    const auto logits = network.Run(batch);
    if (logits.size() != batch_size * classes) {
      throw Error("model " + arguments.model + " gives " + std::to_string(logits.size() / batch_size) +
                  " numbers for an image but card " + arguments.card + " has " + std::to_string(classes) + " labels");
    }
    for (size_t i = 0; i < count; ++i) {
      std::cout << Line(arguments.images[start + i], &logits[i * classes], card, arguments.topk) << std::endl;
    }
  }
}
}  // namespace

int main(int argc, char **argv) {
  try {
    Classify(Parse(argc, argv));
  } catch (const Error &error) {
    std::cerr << "error: " << error.what() << std::endl;
    return 2;
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include "network.h"

#include <cstring>
#include <memory>

#include "error.h"
#include "include/api/context.h"

namespace {
std::shared_ptr<mindspore::Context> MakeContext(const std::string &device, int device_id, int threads) {
  auto context = std::make_shared<mindspore::Context>();
  context->SetThreadNum(threads);
  if (device == "Ascend") {
    auto ascend = std::make_shared<mindspore::AscendDeviceInfo>();
    ascend->SetDeviceID(device_id);
    context->MutableDeviceInfo().push_back(ascend);
  } else {
    context->MutableDeviceInfo().push_back(std::make_shared<mindspore::CPUDeviceInfo>());
  }
  return context;
}
}  // namespace

Network::Network(const std::string &path, const std::string &device, int device_id, int threads) : path_(path) {
  const auto status = model_.Build(path, mindspore::kMindIR, MakeContext(device, device_id, threads));
  if (status != mindspore::kSuccess) {
    throw Error("MindSpore Lite cannot use model " + path + " on " + device + "; it takes a .mindir that its own " +
                "converter made for that device");
  }
  auto inputs = model_.GetInputs();
  if (inputs.size() != 1) {
    throw Error("model " + path + " has " + std::to_string(inputs.size()) + " inputs, not one");
  }
  auto shape = inputs[0].Shape();
  if (!shape.empty() && shape[0] < 1) {
    shape[0] = 1;
    if (model_.Resize(inputs, {shape}) != mindspore::kSuccess) {
      throw Error("model " + path + " takes any number of images, but MindSpore Lite cannot run it for one");
    }
  }
}

size_t Network::BatchSize() { return model_.GetInputs()[0].Shape()[0]; }

size_t Network::BatchBytes() { return model_.GetInputs()[0].DataSize(); }

std::vector<float> Network::Run(const std::vector<uint8_t> &batch) {
  auto inputs = model_.GetInputs();
  std::memcpy(inputs[0].MutableData(), batch.data(), batch.size());
  std::vector<mindspore::MSTensor> outputs;
  if (model_.Predict(inputs, &outputs) != mindspore::kSuccess || outputs.empty()) {
    throw Error("MindSpore Lite failed to run model " + path_);
  }
  if (outputs[0].DataType() != mindspore::DataType::kNumberTypeFloat32) {
    throw Error("model " + path_ + " gives numbers that are not float32");
  }
  const auto *first = static_cast<const float *>(outputs[0].MutableData());
  return {first, first + outputs[0].ElementNum()};
}

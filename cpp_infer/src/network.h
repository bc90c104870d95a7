// SPDX-License-Identifier: Apache-2.0
// A converted model in MindSpore Lite.

#ifndef CPP_INFER_SRC_NETWORK_H_
#define CPP_INFER_SRC_NETWORK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "include/api/model.h"

class Network {
 public:
  // `device` is "CPU" or "Ascend"; `threads` is for the CPU. A model for any number of images is run for one at a time.
  // Throws Error if Lite cannot load or build the model.
  Network(const std::string &path, const std::string &device, int device_id, int threads);

  // Images the model takes at once.
  size_t BatchSize();

  // Bytes of such a batch.
  size_t BatchBytes();

  // Return (B, K), row by row, for the bytes of a batch. Throws Error if the device fails.
  std::vector<float> Run(const std::vector<uint8_t> &batch);

 private:
  std::string path_;
  mindspore::Model model_;
};

#endif  // CPP_INFER_SRC_NETWORK_H_

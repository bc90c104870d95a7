// SPDX-License-Identifier: Apache-2.0
// The description beside an exported file: `X.onnx.json` says what `X.onnx`, and what was converted from it, takes.

#ifndef CPP_INFER_SRC_CARD_H_
#define CPP_INFER_SRC_CARD_H_

#include <string>
#include <vector>

struct Card {
  int image_size;                   // pixels a side of the network's input
  int resize;                       // pixels of the shorter side before the crop
  bool bicubic;                     // how to resize; otherwise bilinear
  int channels;                     // 3, or 1 for grey
  std::vector<float> mean, std;     // of the channels, of pixels from 0 to 1
  bool takes_pixels;                // uint8 (B, S, S, C), normalised in the graph; otherwise float32 (B, C, S, S)
  bool gives_probabilities;         // otherwise logits
  std::vector<std::string> labels;  // of the classes

  // Throws Error if the file cannot be read or contradicts itself.
  static Card Read(const std::string &path);

  // Bytes of one image as the network takes it.
  size_t ImageBytes() const;
};

#endif  // CPP_INFER_SRC_CARD_H_

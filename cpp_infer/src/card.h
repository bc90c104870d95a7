// SPDX-License-Identifier: Apache-2.0
// The description beside an exported file: `X.onnx.json` says what `X.onnx`, and what was converted from it, takes.

#ifndef CPP_INFER_SRC_CARD_H_
#define CPP_INFER_SRC_CARD_H_

#include <string>
#include <vector>

struct Card {
  int height, width;                // of the network's input, pixels
  int resize;                       // pixels of the shorter side of what is cropped, in the proportions of the input
  bool turn;                        // as the file's EXIF orientation says
  bool bicubic;                     // how to resize; otherwise bilinear
  int channels;                     // 3, or 1 for grey
  std::vector<float> mean, std;     // of the channels, of pixels from 0 to 1
  bool takes_pixels;                // uint8 (B, H, W, C), normalised in the graph; otherwise float32 (B, C, H, W)
  bool gives_probabilities;         // otherwise logits
  std::vector<std::string> labels;  // of the classes

  // Throws Error if the file cannot be read or contradicts itself.
  static Card Read(const std::string &path);

  // Bytes of one image as the network takes it.
  size_t ImageBytes() const;
};

#endif  // CPP_INFER_SRC_CARD_H_

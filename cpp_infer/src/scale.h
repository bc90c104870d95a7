// SPDX-License-Identifier: Apache-2.0
// To the size of the network's input, pixel by pixel as Pillow does it in training.

#ifndef CPP_INFER_SRC_SCALE_H_
#define CPP_INFER_SRC_SCALE_H_

#include <opencv2/core.hpp>

#include "card.h"

// uint8 (h, w, C) -> (H, W, C): scaled to cover H x W enlarged to a shorter side of `resize`, and the centre of it.
cv::Mat ScaledAndCropped(cv::Mat image, const Card &card);

#endif  // CPP_INFER_SRC_SCALE_H_

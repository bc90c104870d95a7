// SPDX-License-Identifier: Apache-2.0
// From a file to what the network takes, as evaluation in training does it.

#ifndef CPP_INFER_SRC_IMAGE_H_
#define CPP_INFER_SRC_IMAGE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "card.h"

// Return the bytes of one image: scaled, centre crop, normalised unless the graph does that.
//
// A `.bin` file is taken as it is: prepared elsewhere, little endian, of exactly this size. Throws Error if the file is
// missing, damaged or of another size, if it is no JPEG, PNG, BMP or WebP of 8 bits a channel, or if the program was
// built without OpenCV and the file is no `.bin`.
std::vector<uint8_t> LoadImage(const std::string &path, const Card &card);

#endif  // CPP_INFER_SRC_IMAGE_H_

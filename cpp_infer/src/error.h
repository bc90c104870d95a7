// SPDX-License-Identifier: Apache-2.0
// What the user can mend: one line that names the thing; `main` ends with it and exit code 2.

#ifndef CPP_INFER_SRC_ERROR_H_
#define CPP_INFER_SRC_ERROR_H_

#include <stdexcept>

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

#endif  // CPP_INFER_SRC_ERROR_H_

// SPDX-License-Identifier: Apache-2.0
// The kernels for one set of instructions: compiled once for each, with its own `KERNELS` (the name of the table).

#include "kernels.h"

#include "convolution_path.h"
#include "gelu.h"
#include "sliding_window.h"
#include "suppression.h"
#include "weighted_sum.h"
#include "winograd.h"

extern const Kernels KERNELS = {attention_scratch,
                                attend,
                                attend_gradient,
                                convolution_scratch,
                                convolve,
                                convolve_gradient,
                                weighted_sum,
                                weighted_sum_gradient,
                                gelu,
                                gelu_gradient,
                                suppression_scratch,
                                suppress,
                                winograd,
                                winograd_gradient};

// SPDX-License-Identifier: Apache-2.0
// Threads that sleep while there is nothing to do: ones that spin would take the cores from MindSpore's own.

#pragma once

#include <functional>

// How many threads work at a call, the caller's included.
void set_threads(int count);

// Call `work` with 0, 1, ... count - 1, by as many threads as there are, and return when all is done. While one caller
// has them, another works alone. A process made by fork has threads of its own.
void for_each_unit(int count, const std::function<void(int)>& work);

// Memory of this thread, to write before it is read; for until the thread asks again.
float* scratch(size_t floats);

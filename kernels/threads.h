// SPDX-License-Identifier: Apache-2.0
// Threads that sleep while there is nothing to do: ones that spin would take the cores from MindSpore's own.

#pragma once

#include <cstddef>

// How many threads work at a call, the caller's included.
void set_threads(int count);
int threads();

// Call `work(of, unit)` with 0, 1, ... count - 1, by as many threads as there are, and return when all is done. While
// one caller has them, another works alone. A process made by fork has threads of its own.
void for_each_unit(int count, void (*work)(const void* of, int unit), const void* of);

// The same for any `work(unit)`.
template <typename Work>
void for_each_unit(int count, const Work& work) {
  for_each_unit(count, [](const void* of, int unit) { (*static_cast<const Work*>(of))(unit); }, &work);
}

// Memory of the calling thread, to write before it is read, until it calls the same function again; kept until the
// thread ends. `scratch` is for within a unit; `shared_scratch` for what all units of a call read or write, so that the
// caller's own units may still ask for `scratch`.
float* scratch(size_t floats);
float* shared_scratch(size_t floats);

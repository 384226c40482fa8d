// Loops over LibTorch's own threads, for files that do not compile with OpenMP themselves: its
// flags are others than those of the shared precompiled header.
#pragma once

#include <cstdint>
#include <functional>

namespace latentforge::model {

// Divides 0 … count - 1 into one range for each thread and calls body(begin, end) for those that
// are not empty; returns when all have ended. LibTorch's operations inside use one thread each.
// The first exception is thrown again after that.
void ParallelFor(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body);

}  // namespace latentforge::model

// What the compute process keeps resident besides its tensors.
#pragma once

#include <cstdint>

namespace latentforge::convert {

// glibc keeps what is freed below a threshold that grows with every larger block: tensors
// of one phase then stay resident through the next. Fixed thresholds give them back: freed
// blocks above `kept` bytes, and free memory above it at the heap's end. At most 32 MiB, which
// is as much as glibc takes. Thread-safe.
void LimitHeap(int kept);

// For most phases.
inline constexpr int kTightHeap = 1 << 20;
// For phases that ask for the same megabytes thousands of times: the kernel need not fill them
// with zeros each time. While calibrating that took a seventh of the processor's time; 4 MiB save
// half of it for 20 MiB of memory, 32 MiB two thirds for 40.
inline constexpr int kWarmHeap = 4 << 20;
inline constexpr int kRoomyHeap = 32 << 20;

// oneDNN and its layer in LibTorch keep a thousand kernels for shapes that they have seen.
// A converted model has other shapes in each layer, so these would grow with its depth; a
// forward pass has seven at a time. Both are read when they are first used: call before. A
// user's setting wins.
void LimitKernelCaches();

// Drops the pages of code and constants of all loaded libraries from this process; those in
// use come back from the page cache at once. LibTorch touches far more of itself while it
// loads than a phase needs, and how much of it the kernel maps around each touch depends on
// how the files lie in the cache (40 MB between two copies of one file). Thread-safe.
void ReleaseCodePages();

// Highest resident set of this process so far; 0 where /proc does not say. Thread-safe.
int64_t PeakRssBytes();

}  // namespace latentforge::convert

#include "worker/convert/process_memory.h"

#include <gtest/gtest.h>
#include <link.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <vector>

namespace latentforge::convert {
namespace {

constexpr int64_t kMiB = 1 << 20;

struct Segments {
  int64_t bytes = 0;
  uint64_t sum = 0;  // of one byte of each page
};

// Touches every page of the segments of a library that are never written. Between their objects
// there may be bytes that AddressSanitizer forbids.
__attribute__((no_sanitize("address"))) int ReadSegments(dl_phdr_info* library, size_t /*size*/,
                                                         void* data) {
  auto& segments = *static_cast<Segments*>(data);
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = library->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const uintptr_t start = library->dlpi_addr + segment.p_vaddr;
    for (uintptr_t offset = 0; offset < segment.p_memsz; offset += page) {
      segments.sum += *reinterpret_cast<const unsigned char*>(start + offset);
      segments.bytes += int64_t(page);
    }
  }
  return 0;
}

Segments ReadAll() {
  Segments segments;
  dl_iterate_phdr(ReadSegments, &segments);
  return segments;
}

int64_t ResidentFileBytes() {
  FILE* file = fopen("/proc/self/statm", "r");
  int64_t size = 0, resident = 0, shared = 0;
  if (file == nullptr || fscanf(file, "%ld %ld %ld", &size, &resident, &shared) != 3) shared = -1;
  if (file != nullptr) fclose(file);
  return shared * sysconf(_SC_PAGESIZE);
}

TEST(ProcessMemoryTest, ReleasesCodeAndReadsTheSameAgain) {
  const Segments first = ReadAll();
  ASSERT_GT(first.bytes, kMiB);
  const int64_t before = ResidentFileBytes();
  ReleaseCodePages();
  const int64_t after = ResidentFileBytes();
  // Everything was resident; what the process runs on comes back in blocks of 64 KiB.
  EXPECT_LT(after, before - first.bytes / 2);
  EXPECT_EQ(ReadAll().sum, first.sum);
}

TEST(ProcessMemoryTest, PeakFollowsWhatIsTouched) {
  LimitHeap(kTightHeap);
  const int64_t before = PeakRssBytes();
  ASSERT_GT(before, kMiB);
  {
    std::vector<char> block(64 * kMiB, 1);
    EXPECT_GE(PeakRssBytes(), 64 * kMiB);
  }
  EXPECT_GE(PeakRssBytes(), 64 * kMiB);  // a peak stays
}

}  // namespace
}  // namespace latentforge::convert

#include "worker/convert/process_memory.h"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"

namespace latentforge::convert {
namespace {

// A segment that is never written is the same as its file, so dropping it loses nothing. The
// data that relocation writes is in segments with PF_W.
int ReleaseLibrary(dl_phdr_info* library, size_t /*size*/, void* /*data*/) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = library->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const uintptr_t start = (library->dlpi_addr + segment.p_vaddr) & ~(page - 1);
    const uintptr_t end = (library->dlpi_addr + segment.p_vaddr + segment.p_memsz) & ~(page - 1);
    if (start < end) madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);
  }
  return 0;
}

}  // namespace

void LimitHeap(int kept) {
  mallopt(M_MMAP_THRESHOLD, kept);
  mallopt(M_TRIM_THRESHOLD, kept);
  mallopt(M_ARENA_MAX, 2);
  malloc_trim(0);
}

void LimitKernelCaches() {
  constexpr char kKernels[] = "8";
  setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", kKernels, /*overwrite=*/0);
  setenv("LRU_CACHE_CAPACITY", kKernels, /*overwrite=*/0);
}

void ReleaseCodePages() { dl_iterate_phdr(ReleaseLibrary, nullptr); }

int64_t PeakRssBytes() {
  // Not getrusage: its maximum survives exec and may be the parent's.
  const absl::StatusOr<std::string> status = ReadFile("/proc/self/status", 1 << 16);
  if (!status.ok()) return 0;
  constexpr absl::string_view kKey = "VmHWM:";
  for (absl::string_view line : absl::StrSplit(*status, '\n')) {
    int64_t kib = 0;
    if (absl::ConsumePrefix(&line, kKey) && absl::ConsumeSuffix(&line, "kB") &&
        absl::SimpleAtoi(absl::StripAsciiWhitespace(line), &kib)) {
      return kib * 1024;
    }
  }
  return 0;
}

}  // namespace latentforge::convert

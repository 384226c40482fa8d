#include "checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace latentforge::checkpoint {

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept { *this = std::move(other); }

SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&& other) noexcept {
  if (this == &other) return *this;
  Unmap();
  path_ = std::move(other.path_);
  fd_ = std::move(other.fd_);
  size_ = std::exchange(other.size_, 0);
  map_ = std::exchange(other.map_, nullptr);
  header_ = std::move(other.header_);
  by_name_ = std::move(other.by_name_);
  return *this;
}

SafetensorsFile::~SafetensorsFile() { Unmap(); }

void SafetensorsFile::Unmap() {
  if (map_ != nullptr) munmap(const_cast<std::byte*>(map_), size_);
  map_ = nullptr;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::filesystem::path& path) {
  SafetensorsFile file;
  file.path_ = path;
  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  file.fd_ = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.fd_.valid()) return ErrnoStatus(errno, "opening", path);
  struct stat info;
  if (fstat(file.fd_.get(), &info) != 0) return ErrnoStatus(errno, "looking at", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), " is no regular file"));
  }
  file.size_ = static_cast<uint64_t>(info.st_size);

  // Read rather than mapped: a file that shrinks meanwhile is an error, no signal.
  std::string prefix(std::min<uint64_t>(file.size_, 8), '\0');
  LF_RETURN_IF_ERROR(file.ReadAt(0, absl::MakeSpan(prefix)));
  uint64_t length = 0;
  for (size_t i = prefix.size(); i-- > 0;)
    length = length << 8 | static_cast<unsigned char>(prefix[i]);
  if (prefix.size() == 8 && length <= std::min(kMaxSafetensorsHeaderBytes, file.size_ - 8)) {
    prefix.resize(8 + length);
    LF_RETURN_IF_ERROR(file.ReadAt(8, absl::MakeSpan(prefix).subspan(8)));
  }
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(prefix, file.size_);
  if (!header.ok()) return Annotate(header.status(), path.string());
  file.header_ = *std::move(header);

  void* const map = mmap(nullptr, file.size_, PROT_READ, MAP_PRIVATE, file.fd_.get(), 0);
  if (map == MAP_FAILED) return ErrnoStatus(errno, "mapping", path);
  file.map_ = static_cast<const std::byte*>(map);
  file.by_name_.reserve(file.header_.tensors.size());
  for (uint32_t i = 0; i < file.header_.tensors.size(); ++i) {
    file.by_name_.emplace(file.header_.tensors[i].name, i);
  }
  return file;
}

const TensorEntry* SafetensorsFile::FindEntry(absl::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &header_.tensors[found->second];
}

absl::StatusOr<TensorView> SafetensorsFile::Find(absl::string_view name) const {
  const TensorEntry* const entry = FindEntry(name);
  if (entry == nullptr) {
    return absl::NotFoundError(absl::StrCat(path_.string(), " has no tensor \"", name, "\""));
  }
  struct stat info;
  if (fstat(fd_.get(), &info) != 0) return ErrnoStatus(errno, "looking at", path_);
  if (static_cast<uint64_t>(info.st_size) != size_) {
    return absl::DataLossError(absl::StrCat(path_.string(), " has ", info.st_size,
                                            " bytes, it had ", size_, " when it was opened"));
  }
  return TensorView{entry, absl::MakeConstSpan(map_ + header_.data_begin + entry->begin,
                                               static_cast<size_t>(entry->end - entry->begin))};
}

void SafetensorsFile::DropPages(const TensorView& view) const {
  const auto address = reinterpret_cast<uintptr_t>(view.bytes.data());
  const auto map = reinterpret_cast<uintptr_t>(map_);
  if (view.bytes.empty() || address < map || address - map >= size_) return;
  // A fault maps more than its page: all that is cached of the large page around it,
  // up to 2 MiB, aligned in the file. That reaches into the neighbouring tensors and
  // would add up over many of them, so it goes as well.
  constexpr uint64_t kLargePage = uint64_t{2} << 20;
  const uint64_t first = address - map;
  const uint64_t begin = first / kLargePage * kLargePage;
  const uint64_t last = first + view.bytes.size() + kLargePage - 1;
  const uint64_t end = std::min(size_, last / kLargePage * kLargePage);
  // Only advice: a failure leaves pages resident and changes nothing else.
  madvise(const_cast<std::byte*>(map_ + begin), end - begin, MADV_DONTNEED);
}

absl::Status SafetensorsFile::ReadAt(uint64_t offset, absl::Span<char> buffer) const {
  while (!buffer.empty()) {
    const ssize_t count =
        pread(fd_.get(), buffer.data(), buffer.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "reading", path_);
    if (count == 0) {
      return absl::DataLossError(absl::StrCat(path_.string(), " ends at byte ", offset, ", it had ",
                                              size_, " bytes when it was opened"));
    }
    offset += static_cast<uint64_t>(count);
    buffer.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

}  // namespace latentforge::checkpoint

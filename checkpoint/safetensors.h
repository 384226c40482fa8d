// Reads safetensors files that we do not trust.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/unique_fd.h"
#include "checkpoint/dtype.h"

namespace latentforge::checkpoint {

using Shape = absl::InlinedVector<int64_t, 2>;

// "[576, 192]".
std::string ShapeText(absl::Span<const int64_t> shape);

// Where one tensor lies. Offsets count from the end of the header
// (SafetensorsHeader::data_begin).
struct TensorEntry {
  std::string name;
  Shape shape;
  uint64_t begin = 0;
  uint64_t end = 0;
  DType dtype = DType::kF32;

  // Product of the shape; the parser has checked that it fits.
  int64_t num_elements() const;
};

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;             // by offset; no holes, no overlaps
  std::map<std::string, std::string> metadata;  // "__metadata__"
  uint64_t data_begin = 0;                      // 8 + header length
};

// Headers larger than this are refused, as in the reference implementation.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// Parses the header of a file of `file_size` bytes; `prefix` holds its first
// bytes, at least 8 + header length of them (more are ignored).
// InvalidArgument for everything that the format does not allow: the tensors must
// tile the rest of the file exactly, names must be unique UTF-8.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view prefix,
                                                         uint64_t file_size);

// The bytes of a tensor in a mapped file, little-endian, row-major; not
// necessarily aligned to the element size. Valid while the file object lives.
struct TensorView {
  const TensorEntry* entry = nullptr;
  absl::Span<const std::byte> bytes;

  const std::string& name() const { return entry->name; }
  DType dtype() const { return entry->dtype; }
  absl::Span<const int64_t> shape() const { return entry->shape; }
};

// A safetensors file, mapped read-only. Movable; every method is const and safe
// for concurrent use after Open.
//
// If another process truncates the file while it is mapped, touching the lost
// pages raises SIGBUS. Find looks at the size each time, which turns a file that
// has been cut since Open into an error; only a cut between Find and the access
// remains. ReadAt never touches the mapping.
class SafetensorsFile {
 public:
  // Errors of open and fstat as in base/file.h; InvalidArgument for a bad header
  // or something that is no regular file. Messages name the path.
  static absl::StatusOr<SafetensorsFile> Open(const std::filesystem::path& path);

  SafetensorsFile(SafetensorsFile&& other) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&& other) noexcept;
  ~SafetensorsFile();

  const SafetensorsHeader& header() const { return header_; }
  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return size_; }

  // nullptr when the file has no such tensor.
  const TensorEntry* FindEntry(absl::string_view name) const;

  // NotFound when the file has no such tensor; DataLoss when its size changed.
  absl::StatusOr<TensorView> Find(absl::string_view name) const;

  // Gives the resident pages of a view back, and those of its neighbours within 2 MiB;
  // a later access reads them again. Does nothing for a view of another file.
  // Call it when a layer is done, so that memory holds one layer only.
  void DropPages(const TensorView& view) const;

  // Fills `buffer` from the file at an absolute offset. DataLoss at its end.
  absl::Status ReadAt(uint64_t offset, absl::Span<char> buffer) const;

 private:
  SafetensorsFile() = default;
  void Unmap();

  std::filesystem::path path_;
  UniqueFd fd_;
  uint64_t size_ = 0;
  const std::byte* map_ = nullptr;  // size_ bytes, owned
  SafetensorsHeader header_;
  absl::flat_hash_map<absl::string_view, uint32_t> by_name_;  // into header_.tensors
};

}  // namespace latentforge::checkpoint

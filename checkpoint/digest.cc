#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/finite.h"
#include "checkpoint/tensor_catalogue.h"

namespace latentforge::checkpoint {
namespace {

// Small enough for the second-level cache, so that hashing and checking read
// memory once; a multiple of every element size.
constexpr size_t kChunkBytes = size_t{1} << 19;
constexpr int64_t kProgressBytes = int64_t{16} << 20;

// Hashes files and checks their tensors as it goes. Reads with pread: pages of the
// mapping do not become resident, and a file that is cut meanwhile is an error.
class DigestPass {
 public:
  DigestPass(const DigestOptions& options, int64_t total)
      : options_(options), total_(total), buffer_(kChunkBytes, '\0') {}

  // The size keeps "ab" + "c" apart from "a" + "bc".
  void BeginFile(absl::string_view name, uint64_t size) {
    hash_.Update(absl::StrCat(name, "\n", size, "\n"));
  }

  absl::Status AddText(absl::string_view text) {
    hash_.Update(text);
    return Advance(text.size());
  }

  absl::Status AddShard(const SafetensorsFile& file) {
    const SafetensorsHeader& header = file.header();
    LF_RETURN_IF_ERROR(AddRange(file, 0, header.data_begin, nullptr));
    // The tensors tile the rest of the file.
    for (const TensorEntry& tensor : header.tensors) {
      LF_RETURN_IF_ERROR(AddRange(file, header.data_begin + tensor.begin,
                                  header.data_begin + tensor.end, &tensor));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Finish() {
    if (options_.progress) LF_RETURN_IF_ERROR(options_.progress(done_, total_));
    return hash_.Finish();
  }

 private:
  absl::Status AddRange(const SafetensorsFile& file, uint64_t begin, uint64_t end,
                        const TensorEntry* tensor) {
    for (uint64_t offset = begin; offset < end;) {
      const size_t size = static_cast<size_t>(std::min<uint64_t>(kChunkBytes, end - offset));
      LF_RETURN_IF_ERROR(file.ReadAt(offset, absl::MakeSpan(buffer_).subspan(0, size)));
      const absl::string_view chunk = absl::string_view(buffer_).substr(0, size);
      hash_.Update(chunk);
      if (tensor != nullptr) LF_RETURN_IF_ERROR(CheckFinite(file, *tensor, offset - begin, chunk));
      LF_RETURN_IF_ERROR(Advance(size));
      offset += size;
    }
    return absl::OkStatus();
  }

  absl::Status CheckFinite(const SafetensorsFile& file, const TensorEntry& tensor, uint64_t offset,
                           absl::string_view chunk) const {
    if (!options_.check_finite || IsIgnoredTensor(tensor.name)) return absl::OkStatus();
    const std::optional<int64_t> index = FindNonFinite(tensor.dtype, chunk);
    if (!index.has_value()) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(
        file.path().string(), ": tensor \"", tensor.name, "\" has a NaN or infinity at element ",
        static_cast<int64_t>(offset) / BytesOf(tensor.dtype) + *index, " of ",
        tensor.num_elements(), ", expected finite weights"));
  }

  absl::Status Advance(size_t bytes) {
    done_ += static_cast<int64_t>(bytes);
    if (!options_.progress || done_ < next_report_) return absl::OkStatus();
    next_report_ = done_ + kProgressBytes;
    return options_.progress(done_, total_);
  }

  const DigestOptions& options_;
  const int64_t total_;
  std::string buffer_;
  Sha256 hash_;
  int64_t done_ = 0;
  int64_t next_report_ = kProgressBytes;
};

}  // namespace

absl::StatusOr<std::string> Checkpoint::Digest(const DigestOptions& options) const {
  auto total = static_cast<int64_t>(config_json_.size());
  for (const SafetensorsFile& shard : shards_) total += static_cast<int64_t>(shard.size());
  DigestPass pass(options, total);
  for (const std::string& name : files()) {
    if (name == kConfigFile) {
      pass.BeginFile(name, config_json_.size());
      LF_RETURN_IF_ERROR(pass.AddText(config_json_));
      continue;
    }
    const auto found = std::lower_bound(shard_names_.begin(), shard_names_.end(), name);
    const SafetensorsFile& shard = shards_[static_cast<size_t>(found - shard_names_.begin())];
    pass.BeginFile(name, shard.size());
    LF_RETURN_IF_ERROR(pass.AddShard(shard));
  }
  return pass.Finish();
}

}  // namespace latentforge::checkpoint

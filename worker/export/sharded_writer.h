// Spreads tensors over safetensors files of limited size, with the index that
// transformers reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/export/safetensors_writer.h"

namespace latentforge::exporter {

inline constexpr int64_t kDefaultShardBytes = 5'000'000'000;

// Writes model.safetensors when everything fits one shard, else
// model-0000i-of-0000N.safetensors and model.safetensors.index.json. A tensor
// larger than the limit gets a shard of its own. Not safe for concurrent use.
class ShardedWriter {
 public:
  // Plans the shards; `folder` exists. Errors as SafetensorsWriter::Create.
  static absl::StatusOr<ShardedWriter> Create(const std::filesystem::path& folder,
                                              std::vector<TensorDeclaration> tensors,
                                              int64_t shard_bytes = kDefaultShardBytes);

  // As SafetensorsWriter::Append, in the declared order over all shards.
  absl::Status Append(absl::string_view name, absl::string_view bytes);

  // Finishes the last shard. Returns every written shard's name and the SHA-256 of
  // what was meant to be in it.
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Finish();

  // The text of model.safetensors.index.json; nullopt when there is one shard.
  std::optional<std::string> IndexText() const;

 private:
  ShardedWriter() = default;

  absl::Status OpenShard();
  absl::Status CloseShard();
  std::string ShardName(size_t shard) const;

  std::filesystem::path folder_;
  std::vector<std::vector<TensorDeclaration>> shards_;
  std::vector<std::pair<std::string, std::string>> finished_;  // name and SHA-256
  int64_t total_bytes_ = 0;
  std::optional<SafetensorsWriter> writer_;  // of shards_[finished_.size()]
};

}  // namespace latentforge::exporter

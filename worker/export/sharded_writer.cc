#include "worker/export/sharded_writer.h"

#include "absl/strings/str_format.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace latentforge::exporter {

absl::StatusOr<ShardedWriter> ShardedWriter::Create(const std::filesystem::path& folder,
                                                    std::vector<TensorDeclaration> tensors,
                                                    int64_t shard_bytes) {
  ShardedWriter writer;
  writer.folder_ = folder;
  writer.shards_.emplace_back();
  int64_t used = 0;
  for (TensorDeclaration& tensor : tensors) {
    LF_ASSIGN_OR_RETURN(const int64_t bytes, DeclaredBytes(tensor));
    if (!writer.shards_.back().empty() && bytes > shard_bytes - used) {
      writer.shards_.emplace_back();
      used = 0;
    }
    used += bytes;
    writer.total_bytes_ += bytes;
    writer.shards_.back().push_back(std::move(tensor));
  }
  LF_RETURN_IF_ERROR(writer.OpenShard());
  return writer;
}

std::string ShardedWriter::ShardName(size_t shard) const {
  if (shards_.size() == 1) return "model.safetensors";
  return absl::StrFormat("model-%05d-of-%05d.safetensors", shard + 1, shards_.size());
}

absl::Status ShardedWriter::OpenShard() {
  const size_t shard = finished_.size();
  LF_ASSIGN_OR_RETURN(writer_,
                      SafetensorsWriter::Create(folder_ / ShardName(shard), shards_[shard]));
  return absl::OkStatus();
}

absl::Status ShardedWriter::CloseShard() {
  LF_ASSIGN_OR_RETURN(std::string digest, writer_->Finish());
  writer_.reset();
  finished_.emplace_back(ShardName(finished_.size()), std::move(digest));
  return absl::OkStatus();
}

absl::Status ShardedWriter::Append(absl::string_view name, absl::string_view bytes) {
  if (!writer_.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("tensor ", name, " was written after the last declared tensor"));
  }
  LF_RETURN_IF_ERROR(writer_->Append(name, bytes));
  if (writer_->complete() && finished_.size() + 1 < shards_.size()) {
    LF_RETURN_IF_ERROR(CloseShard());
    return OpenShard();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ShardedWriter::Finish() {
  LF_RETURN_IF_ERROR(CloseShard());
  if (finished_.size() != shards_.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat(finished_.size(), " of ", shards_.size(), " safetensors shards were written"));
  }
  return finished_;
}

std::optional<std::string> ShardedWriter::IndexText() const {
  if (shards_.size() == 1) return std::nullopt;
  Json map = Json::object();
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    for (const TensorDeclaration& tensor : shards_[shard]) map[tensor.name] = ShardName(shard);
  }
  const Json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", map}};
  return WriteJson(index, 2) + "\n";
}

}  // namespace latentforge::exporter

#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "checkpoint/open_error.h"
#include "checkpoint/source_names.h"
#include "checkpoint/tensor_catalogue.h"

namespace latentforge::checkpoint {
namespace {

absl::Status CheckTensor(const TensorSpec& spec, const TensorEntry& entry, absl::string_view file) {
  if (!std::equal(spec.shape.begin(), spec.shape.end(), entry.shape.begin(), entry.shape.end())) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": tensor \"", spec.name, "\" has shape ",
                                                   ShapeText(entry.shape), ", expected ",
                                                   ShapeText(spec.shape), " from config.json"));
  }
  const bool is_order = spec.kind == TensorSpec::Kind::kOrder;
  if (is_order ? entry.dtype != DType::kI32 : !IsWeightType(entry.dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": tensor \"", spec.name, "\" has type ",
                                                   NameOf(entry.dtype), ", expected ",
                                                   is_order ? "I32" : "F32, F16 or BF16"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::filesystem::path& dir) {
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  absl::StatusOr<std::string> text = ReadTextInFolder(dir, kConfigFile);
  if (!text.ok()) return InPart(Part::kConfig, text.status());
  checkpoint.config_json_ = *std::move(text);
  absl::StatusOr<ModelConfig> config = ParseModelConfig(checkpoint.config_json_);
  if (!config.ok()) return InPart(Part::kConfig, Annotate(config.status(), dir.string()));
  checkpoint.config_ = *std::move(config);
  const absl::StatusOr<ShardList> list = ListShards(dir);
  if (!list.ok()) return InPart(Part::kWeights, list.status());
  LF_RETURN_IF_ERROR(InPart(Part::kWeights, Annotate(checkpoint.OpenShards(*list), dir.string())));
  LF_RETURN_IF_ERROR(Annotate(checkpoint.LocateTensors(), dir.string()));
  LF_RETURN_IF_ERROR(Annotate(checkpoint.CheckIndex(*list), dir.string()));
  LF_RETURN_IF_ERROR(Annotate(checkpoint.CheckTensors(), dir.string()));
  LF_RETURN_IF_ERROR(checkpoint.CheckTiedHead());
  return checkpoint;
}

absl::Status Checkpoint::OpenShards(const ShardList& list) {
  shard_names_ = list.files;
  for (const std::string& name : shard_names_) {
    const absl::StatusOr<std::filesystem::path> path = ResolveInFolder(dir_, name);
    if (!path.ok() && !list.tensors.empty()) {
      return Annotate(path.status(), absl::StrCat(kIndexFile, " names ", name));
    }
    if (!path.ok()) return path.status();
    LF_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(*path));
    shards_.push_back(std::move(file));
  }
  return absl::OkStatus();
}

// Once the files stay where they are.
absl::Status Checkpoint::LocateTensors() {
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    for (const TensorEntry& entry : shards_[shard].header().tensors) {
      const auto [found, inserted] = tensors_.try_emplace(entry.name, Location{shard, &entry});
      if (inserted || IsIgnoredTensor(entry.name)) continue;
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", entry.name, "\" is in ",
                                                     shard_names_[found->second.shard], " and in ",
                                                     shard_names_[shard], ", expected once"));
    }
  }
  // The embedding tells; names that do not go with it are missing, or too many.
  bare_ = !tensors_.contains(SourceName(config_, kEmbedTokens)) &&
          tensors_.contains(BareSourceName(config_, kEmbedTokens));
  return absl::OkStatus();
}

std::string Checkpoint::StoredName(absl::string_view name) const {
  return bare_ ? BareSourceName(config_, name) : SourceName(config_, name);
}

absl::Status Checkpoint::CheckIndex(const ShardList& list) const {
  if (list.tensors.empty()) return absl::OkStatus();
  for (const auto& [tensor, file] : list.tensors) {
    const auto found = tensors_.find(tensor);
    if (found != tensors_.end() && shard_names_[found->second.shard] == file) continue;
    if (IsIgnoredTensor(tensor)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(kIndexFile, " puts tensor \"", tensor, "\" into ", file, ", which lacks it"));
  }
  for (const auto& [tensor, location] : tensors_) {
    if (IsIgnoredTensor(tensor) || list.tensors.count(std::string(tensor)) != 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(shard_names_[location.shard], " holds tensor \"",
                                                   tensor, "\", which ", kIndexFile, " lacks"));
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::CheckTensors() {
  absl::flat_hash_set<std::string> expected;
  std::set<std::string> dtypes;
  for (TensorSpec& spec : ExpectedTensors(config_)) {
    tensor_names_.push_back(spec.name);
    spec.name = StoredName(spec.name);
    const auto found = tensors_.find(spec.name);
    if (found == tensors_.end()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", spec.name, "\" of shape ",
                                                     ShapeText(spec.shape), " is missing"));
    }
    const auto& [shard, entry] = found->second;
    LF_RETURN_IF_ERROR(CheckTensor(spec, *entry, shard_names_[shard]));
    total_bytes_ += static_cast<int64_t>(entry->end - entry->begin);
    if (spec.kind == TensorSpec::Kind::kWeight) dtypes.insert(std::string(NameOf(entry->dtype)));
    expected.insert(std::move(spec.name));
  }
  dtype_names_.assign(dtypes.begin(), dtypes.end());
  std::vector<std::string> unknown;
  for (const auto& [name, location] : tensors_) {
    if (expected.contains(name) || IsIgnoredTensor(name)) continue;
    if (name == kLmHead && config_.tie_word_embeddings) continue;  // see CheckTiedHead
    unknown.emplace_back(name);
  }
  return CheckUnknownTensors(std::move(unknown));
}

absl::Status Checkpoint::CheckUnknownTensors(std::vector<std::string> unknown) const {
  if (unknown.empty()) return absl::OkStatus();
  std::sort(unknown.begin(), unknown.end());
  const size_t count = unknown.size();
  unknown.resize(std::min<size_t>(count, 5));
  return absl::InvalidArgumentError(
      absl::StrCat(count, count == 1 ? " tensor that a " : " tensors that a ", config_.model_type,
                   " model with this config.json does not have: ", absl::StrJoin(unknown, ", "),
                   count > unknown.size() ? ", ..." : ""));
}

// A tied checkpoint may repeat the embedding as its head; a head that differs
// contradicts config.json.
absl::Status Checkpoint::CheckTiedHead() const {
  if (!config_.tie_word_embeddings || !tensors_.contains(kLmHead)) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const TensorView head, View(kLmHead));
  LF_ASSIGN_OR_RETURN(const TensorView embedding, View(kEmbedTokens));
  const bool equal = head.dtype() == embedding.dtype() &&
                     head.bytes.size() == embedding.bytes.size() &&
                     std::memcmp(head.bytes.data(), embedding.bytes.data(), head.bytes.size()) == 0;
  DropPages(head);
  DropPages(embedding);
  if (equal) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(dir_.string(), ": tensor \"", kLmHead, "\" differs from \"", kEmbedTokens,
                   "\" although config.json has \"tie_word_embeddings\": true"));
}

absl::StatusOr<TensorView> Checkpoint::View(absl::string_view name) const {
  const std::string stored = StoredName(name);
  const auto found = tensors_.find(stored);
  if (found == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat(dir_.string(), " has no tensor \"", stored, "\""));
  }
  return shards_[found->second.shard].Find(stored);
}

absl::StatusOr<TensorView> Checkpoint::Tensor(absl::string_view name) const {
  const bool unread = IsIgnoredTensor(name) || (name == kLmHead && config_.tie_word_embeddings);
  if (unread) {
    return absl::NotFoundError(absl::StrCat(
        "a ", config_.model_type, " model with this config.json has no tensor \"", name, "\""));
  }
  return View(name);
}

void Checkpoint::DropPages(const TensorView& view) const {
  // Only the shard that holds the view does anything.
  for (const SafetensorsFile& shard : shards_) shard.DropPages(view);
}

std::vector<std::string> Checkpoint::files() const {
  std::vector<std::string> files = shard_names_;
  files.push_back(kConfigFile);
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace latentforge::checkpoint

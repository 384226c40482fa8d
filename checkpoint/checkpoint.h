// A checkpoint folder: config.json and safetensors shards, checked as a whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "checkpoint/folder.h"
#include "checkpoint/model_config.h"
#include "checkpoint/safetensors.h"

namespace latentforge::checkpoint {

struct DigestOptions {
  // Called about every 16 MiB with bytes done and bytes in all; an error stops
  // the pass and is returned.
  std::function<absl::Status(int64_t done, int64_t total)> progress;
  // Also look for NaN and infinity in every F32, F16 and BF16 tensor.
  bool check_finite = true;
};

// An opened checkpoint. Movable; every method is const and safe for concurrent
// use. Weights stay on disk, mapped; see SafetensorsFile for truncated files.
class Checkpoint {
 public:
  // Reads DIR/config.json and DIR/model.safetensors, or the shards that
  // DIR/model.safetensors.index.json names (plain file names that do not lead out
  // of the folder through a symbolic link). On return every tensor of
  // ExpectedTensors is there, once, with its shape and one of F32, F16, BF16 (I32 for an order of
  // channels, whose entries are checked by whoever loads it).
  // NotFound: folder, config or shard absent. PermissionDenied: unreadable, or a
  // shard outside the folder. InvalidArgument: anything malformed, missing, of
  // the wrong shape or type, or unknown. Unimplemented: as ParseModelConfig. ReasonOfOpenError
  // tells which part is malformed.
  static absl::StatusOr<Checkpoint> Open(const std::filesystem::path& dir);

  const std::filesystem::path& dir() const { return dir_; }
  const ModelConfig& config() const { return config_; }
  const std::string& config_json() const { return config_json_; }  // text of config.json

  // By its name in ExpectedTensors, whatever the files call it (source_names.h); messages have the
  // files' names. NotFound for a name outside ExpectedTensors; DataLoss when a shard's size
  // changed since Open.
  absl::StatusOr<TensorView> Tensor(absl::string_view name) const;

  // See SafetensorsFile::DropPages.
  void DropPages(const TensorView& view) const;

  // Names of ExpectedTensors, in its order.
  const std::vector<std::string>& tensor_names() const { return tensor_names_; }

  // Types of the expected weights, sorted, each once: {"BF16", "F32"}.
  const std::vector<std::string>& dtype_names() const { return dtype_names_; }

  // Bytes of the expected tensors.
  int64_t total_bytes() const { return total_bytes_; }

  // config.json and every shard, as names within dir(); sorted.
  std::vector<std::string> files() const;

  // SHA-256, in lower-case hexadecimal, over name, size and contents of every file
  // of files(), in that order; each is read once. DataLoss names tensor and
  // element index of the first value that is not finite.
  absl::StatusOr<std::string> Digest(const DigestOptions& options = {}) const;

 private:
  struct Location {
    size_t shard = 0;  // index into shards_
    const TensorEntry* entry = nullptr;
  };

  Checkpoint() = default;
  absl::Status OpenShards(const ShardList& list);
  absl::Status LocateTensors();
  absl::Status CheckIndex(const ShardList& list) const;
  absl::Status CheckTensors();
  absl::Status CheckUnknownTensors(std::vector<std::string> unknown) const;
  absl::Status CheckTiedHead() const;
  absl::StatusOr<TensorView> View(absl::string_view name) const;
  std::string StoredName(absl::string_view name) const;

  std::filesystem::path dir_;
  std::string config_json_;
  ModelConfig config_;
  std::vector<std::string> shard_names_;  // within dir_, sorted
  std::vector<SafetensorsFile> shards_;
  absl::flat_hash_map<absl::string_view, Location> tensors_;  // views into shards_
  bool bare_ = false;                                         // the files have BareSourceName
  std::vector<std::string> tensor_names_;
  std::vector<std::string> dtype_names_;
  int64_t total_bytes_ = 0;
};

}  // namespace latentforge::checkpoint

// Which files of a folder make up a checkpoint. Helpers of Checkpoint::Open.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge::checkpoint {

inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kSingleFile[] = "model.safetensors";
inline constexpr char kIndexFile[] = "model.safetensors.index.json";

// The real path of DIR/NAME. Symbolic links may lead to other places in DIR and,
// in the layout of the Hugging Face cache (DIR is .../snapshots/REVISION), into
// .../blobs; elsewhere is PermissionDenied. NotFound when it is absent,
// InvalidArgument when `name` is no plain file name or the file is not regular.
absl::StatusOr<std::filesystem::path> ResolveInFolder(const std::filesystem::path& dir,
                                                      absl::string_view name);

// DIR/NAME as text; errors as ResolveInFolder and ReadFile.
absl::StatusOr<std::string> ReadTextInFolder(const std::filesystem::path& dir,
                                             absl::string_view name);

// Where the weights are said to be.
struct ShardList {
  std::vector<std::string> files;              // plain names, sorted, each once
  std::map<std::string, std::string> tensors;  // tensor -> file; empty without an index
};

// model.safetensors when it is there, else what the index says. NotFound when
// neither is there; InvalidArgument for a malformed index.
absl::StatusOr<ShardList> ListShards(const std::filesystem::path& dir);

// The text of an index, parsed; file names are checked to be plain.
absl::StatusOr<ShardList> ParseShardIndex(absl::string_view json_text);

}  // namespace latentforge::checkpoint

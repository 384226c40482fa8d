// Writes tiny checkpoints with random weights, for the tests of any folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "checkpoint/dtype.h"
#include "checkpoint/model_config.h"

namespace latentforge::checkpoint {

struct TinyOptions {
  Family family = Family::kLlama;
  int64_t hidden_size = 32;
  int64_t intermediate_size = 48;
  int64_t num_layers = 2;
  int64_t num_heads = 4;
  int64_t num_kv_heads = 2;  // not of OPT, which has as many as num_heads
  int64_t head_dim = 8;
  int64_t vocab_size = 64;
  int64_t max_position_embeddings = 256;
  bool tie_word_embeddings = false;
  DType dtype = DType::kF32;
  int shards = 1;      // above 1: with model.safetensors.index.json
  uint64_t seed = 1;   // same options, same bytes
  double scale = 0.1;  // weights are uniform in [-scale, scale]; norms near 1
  // Further keys of config.json, or other values for those above.
  Json config_overrides = Json::object();
  // Ranks of a converted model, one entry per layer; its base family is `family`.
  std::vector<LayerRanks> ranks;
  bool joint = false;
  // Instead of those, a model of the method low_rank; its base family is `family`.
  std::optional<LowRankConfig> low_rank;
  bool bare = false;  // tensors have BareSourceName
};

// The text of config.json that WriteTinyCheckpoint writes (transformers 4 style).
std::string TinyConfigJson(const TinyOptions& options);

// Makes `dir` and writes config.json, the shards and a tokenizer.json that knows no
// word into it.
absl::Status WriteTinyCheckpoint(const std::filesystem::path& dir, const TinyOptions& options = {});

// One tensor of a hand-made safetensors file.
struct RawTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::string bytes;
};

// The bytes of a valid safetensors file that holds `tensors` in this order.
std::string SafetensorsBytes(const std::vector<RawTensor>& tensors);

// 8 bytes of length, `header`, `data`: valid or not.
std::string SafetensorsBytes(absl::string_view header, absl::string_view data);

// A new empty folder beneath the system's temporary folder, removed when the program ends.
// Thread-safe.
std::filesystem::path NewTestDirectory(absl::string_view name);

}  // namespace latentforge::checkpoint

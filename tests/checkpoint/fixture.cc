#include "tests/checkpoint/fixture.h"

#include <stdlib.h>

#include <bit>
#include <numeric>
#include <random>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "checkpoint/source_names.h"
#include "checkpoint/tensor_catalogue.h"

namespace latentforge::checkpoint {
namespace {

template <typename Word>
void AppendLittleEndian(Word word, std::string& bytes) {
  for (size_t i = 0; i < sizeof(Word); ++i) {
    bytes.push_back(static_cast<char>(word >> (8 * i) & 0xff));
  }
}

// Enough of IEEE half precision for values whose magnitude lies in [2^-14, 65504];
// smaller ones become zero, further bits are cut.
uint16_t HalfBits(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto exponent = static_cast<int>(bits >> 23 & 0xff) - 127 + 15;
  const uint32_t sign = bits >> 16 & 0x8000;
  if (exponent <= 0) return static_cast<uint16_t>(sign);
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(exponent) << 10 | (bits >> 13 & 0x3ff));
}

void AppendValue(float value, DType dtype, std::string& bytes) {
  if (dtype == DType::kF16) {
    AppendLittleEndian(HalfBits(value), bytes);
  } else if (dtype == DType::kBF16) {
    AppendLittleEndian(static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16), bytes);
  } else {
    AppendLittleEndian(std::bit_cast<uint32_t>(value), bytes);
  }
}

// A permutation that moves about every channel.
RawTensor RandomOrder(const TensorSpec& spec, std::mt19937_64& random) {
  std::vector<uint32_t> order(static_cast<size_t>(spec.shape[0]));
  std::iota(order.begin(), order.end(), 0u);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  RawTensor tensor{spec.name, DType::kI32, {spec.shape.begin(), spec.shape.end()}, ""};
  for (const uint32_t channel : order) AppendLittleEndian(channel, tensor.bytes);
  return tensor;
}

RawTensor RandomTensor(const TensorSpec& spec, const TinyOptions& options,
                       std::mt19937_64& random) {
  if (spec.kind == TensorSpec::Kind::kOrder) return RandomOrder(spec, random);
  RawTensor tensor{spec.name, options.dtype, {spec.shape.begin(), spec.shape.end()}, ""};
  int64_t elements = 1;
  for (const int64_t dimension : spec.shape) elements *= dimension;
  const double offset = absl::StrContains(spec.name, "norm.weight") ? 1 : 0;
  for (int64_t i = 0; i < elements; ++i) {
    // Not std::uniform_real_distribution: its values differ between libraries.
    const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
    AppendValue(static_cast<float>(offset + options.scale * (2 * unit - 1)), options.dtype,
                tensor.bytes);
  }
  return tensor;
}

Json LatentJson(const TinyOptions& options) {
  Json ranks = Json::array();
  for (const LayerRanks& layer : options.ranks) {
    ranks.push_back(options.joint ? Json::array({layer.joint}) : Json::array({layer.k, layer.v}));
  }
  return {{"format_version", 1},
          {"base_model_type", std::string(FamilyName(options.family))},
          {"latent", options.joint ? "joint" : "separate"},
          {"ranks", std::move(ranks)}};
}

Json LowRankJson(const TinyOptions& options) {
  Json ranks = Json::array();
  for (const LinearRanks& layer : options.low_rank->ranks) {
    ranks.push_back({{"q", layer.q},
                     {"k", layer.k},
                     {"v", layer.v},
                     {"o", layer.o},
                     {"gate", layer.gate},
                     {"up", layer.up},
                     {"down", layer.down}});
  }
  return {{"format_version", 2},
          {"method", "low_rank"},
          {"base_model_type", std::string(FamilyName(options.family))},
          {"block_identity", options.low_rank->block_identity},
          {"bias", options.low_rank->bias},
          {"ranks", std::move(ranks)}};
}

// Gives an OPT model the keys of its own family in place of the others'.
void UseKeysOfOpt(Json& config) {
  config["ffn_dim"] = config["intermediate_size"];
  config["activation_function"] = "relu";
  for (const char* key : {"intermediate_size", "num_key_value_heads", "head_dim", "rms_norm_eps",
                          "rope_theta", "hidden_act"}) {
    config.erase(key);
  }
}

Json BaseConfig(const TinyOptions& options) {
  constexpr const char* kArchitectures[] = {"LlamaForCausalLM", "MistralForCausalLM",
                                            "Qwen2ForCausalLM", "Qwen3ForCausalLM",
                                            "OPTForCausalLM"};
  constexpr const char* kTypes[] = {"float32", "float16", "bfloat16"};
  Json config = {{"model_type", std::string(FamilyName(options.family))},
                 {"architectures", Json::array({kArchitectures[static_cast<int>(options.family)]})},
                 {"hidden_size", options.hidden_size},
                 {"intermediate_size", options.intermediate_size},
                 {"num_hidden_layers", options.num_layers},
                 {"num_attention_heads", options.num_heads},
                 {"num_key_value_heads", options.num_kv_heads},
                 {"head_dim", options.head_dim},
                 {"vocab_size", options.vocab_size},
                 {"max_position_embeddings", options.max_position_embeddings},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 10000.0},
                 {"hidden_act", "silu"},
                 {"tie_word_embeddings", options.tie_word_embeddings},
                 {"torch_dtype", kTypes[options.dtype == DType::kF16    ? 1
                                        : options.dtype == DType::kBF16 ? 2
                                                                        : 0]}};
  if (options.family == Family::kOpt) UseKeysOfOpt(config);
  // Absent means 4096 for Mistral.
  if (options.family == Family::kMistral) config["sliding_window"] = nullptr;
  if (!options.ranks.empty() || options.low_rank.has_value()) {
    config["model_type"] = "latentforge";
    config["architectures"] = Json::array({"LatentforgeForCausalLM"});
    config["latentforge"] =
        options.low_rank.has_value() ? LowRankJson(options) : LatentJson(options);
  }
  return config;
}

}  // namespace

std::string TinyConfigJson(const TinyOptions& options) {
  Json config = BaseConfig(options);
  for (const auto& [key, value] : options.config_overrides.items()) config[key] = value;
  return WriteJson(config, 2);
}

absl::Status WriteTinyCheckpoint(const std::filesystem::path& dir, const TinyOptions& options) {
  const std::string config_json = TinyConfigJson(options);
  LF_ASSIGN_OR_RETURN(const ModelConfig config, ParseModelConfig(config_json));
  LF_RETURN_IF_ERROR(CreateDirectories(dir));
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "config.json", config_json));
  LF_RETURN_IF_ERROR(WriteFileAtomic(
      dir / "tokenizer.json",
      R"({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}})"));

  std::mt19937_64 random(options.seed);
  std::vector<std::vector<RawTensor>> shards(static_cast<size_t>(options.shards));
  const std::vector<TensorSpec> specs = ExpectedTensors(config);
  for (size_t i = 0; i < specs.size(); ++i) {
    RawTensor tensor = RandomTensor(specs[i], options, random);
    tensor.name =
        options.bare ? BareSourceName(config, tensor.name) : SourceName(config, tensor.name);
    shards[i * shards.size() / specs.size()].push_back(std::move(tensor));
  }
  if (shards.size() == 1) {
    return WriteFileAtomic(dir / "model.safetensors", SafetensorsBytes(shards[0]));
  }
  Json index = {{"metadata", Json::object()}, {"weight_map", Json::object()}};
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    const std::string name =
        absl::StrFormat("model-%05d-of-%05d.safetensors", shard + 1, shards.size());
    for (const RawTensor& tensor : shards[shard]) index["weight_map"][tensor.name] = name;
    LF_RETURN_IF_ERROR(WriteFileAtomic(dir / name, SafetensorsBytes(shards[shard])));
  }
  return WriteFileAtomic(dir / "model.safetensors.index.json", WriteJson(index, 2));
}

std::string SafetensorsBytes(const std::vector<RawTensor>& tensors) {
  nlohmann::ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const RawTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", std::string(NameOf(tensor.dtype))},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  return SafetensorsBytes(header.dump(), data);
}

std::string SafetensorsBytes(absl::string_view header, absl::string_view data) {
  std::string bytes;
  AppendLittleEndian(static_cast<uint64_t>(header.size()), bytes);
  absl::StrAppend(&bytes, header, data);
  return bytes;
}

namespace {

// Removes the folders of a test program at its end; children that end by _exit leave them alone.
struct TestDirectories {
  ~TestDirectories() {
    std::error_code error;
    for (const std::filesystem::path& path : paths) std::filesystem::remove_all(path, error);
  }
  absl::Mutex mutex;
  std::vector<std::filesystem::path> paths ABSL_GUARDED_BY(mutex);
};

}  // namespace

std::filesystem::path NewTestDirectory(absl::string_view name) {
  std::string pattern =
      (std::filesystem::temp_directory_path() / absl::StrCat("latentforge-", name, "-XXXXXX"))
          .string();
  if (mkdtemp(pattern.data()) == nullptr) return {};
  static TestDirectories made;
  absl::MutexLock lock(&made.mutex);
  made.paths.push_back(pattern);
  return pattern;
}

}  // namespace latentforge::checkpoint

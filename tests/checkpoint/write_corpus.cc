// Writes the seed corpora of the fuzzers: write_corpus DIR makes DIR/safetensors, DIR/config,
// DIR/manifest and DIR/rank_profile.
#include <cstdio>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

absl::Status WriteSafetensors(const std::filesystem::path& dir) {
  LF_RETURN_IF_ERROR(CreateDirectories(dir));
  const RawTensor a{"a", DType::kF32, {1, 2}, "12345678"};
  const RawTensor b{"model.layers.0.b", DType::kBF16, {3}, "123456"};
  const RawTensor empty{"empty", DType::kI64, {0, 5}, ""};
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "none", SafetensorsBytes("{}", "")));
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "one", SafetensorsBytes({a})));
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "three", SafetensorsBytes({a, empty, b})));
  const RawTensor nibbles{"n", DType::kF4, {2, 2}, "12"};
  return WriteFileAtomic(dir / "nibbles", SafetensorsBytes({nibbles}));
}

absl::Status WriteConfigs(const std::filesystem::path& dir) {
  LF_RETURN_IF_ERROR(CreateDirectories(dir));
  for (const Family family :
       {Family::kLlama, Family::kMistral, Family::kQwen2, Family::kQwen3, Family::kOpt}) {
    TinyOptions options;
    options.family = family;
    const std::string name(FamilyName(family));
    LF_RETURN_IF_ERROR(WriteFileAtomic(dir / name, TinyConfigJson(options)));
    options.ranks = {{4, 4, 0}, {16, 1, 0}};
    LF_RETURN_IF_ERROR(
        WriteFileAtomic(dir / absl::StrCat(name, "_latent"), TinyConfigJson(options)));
    options.ranks = {{0, 0, 8}, {0, 0, 32}};
    options.joint = true;
    LF_RETURN_IF_ERROR(
        WriteFileAtomic(dir / absl::StrCat(name, "_joint"), TinyConfigJson(options)));
    options.low_rank = LowRankConfig{.ranks = {{.q = 3, .gate = 5}, {.v = 4, .down = 6}}};
    LF_RETURN_IF_ERROR(
        WriteFileAtomic(dir / absl::StrCat(name, "_low_rank"), TinyConfigJson(options)));
  }
  TinyOptions llama3;
  llama3.config_overrides = Json::parse(R"({"rope_parameters":{"rope_type":"llama3","factor":8.0,
      "low_freq_factor":1.0,"high_freq_factor":4.0,"rope_theta":500000.0}})");
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "llama3", TinyConfigJson(llama3)));
  TinyOptions window;
  window.family = Family::kQwen3;
  window.config_overrides = Json::parse(R"({"use_sliding_window":true,"sliding_window":8,
      "layer_types":["full_attention","sliding_attention"]})");
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "window", TinyConfigJson(window)));
  return WriteFileAtomic(dir / "index", R"({"weight_map":{"a":"model-1.safetensors"}})");
}

absl::Status WriteManifests(const std::filesystem::path& dir) {
  LF_RETURN_IF_ERROR(CreateDirectories(dir));
  Json manifest = {{"format_version", 1},
                   {"job_id", "j"},
                   {"source", {{"digest", "s"}}},
                   {"settings", {{"digest", "t"}}},
                   {"versions", {{"latentforge", "0.1.0"}, {"more", {1.5, nullptr, true}}}},
                   {"files", Json::array()}};
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "empty", WriteJson(manifest)));
  for (const char* name : {"config.json", "model.safetensors"}) {
    manifest["files"].push_back({{"name", name}, {"size", 7}, {"sha256", std::string(64, 'a')}});
  }
  return WriteFileAtomic(dir / "two", WriteJson(manifest, 2));
}

absl::Status WriteRankProfiles(const std::filesystem::path& dir) {
  LF_RETURN_IF_ERROR(CreateDirectories(dir));
  LF_RETURN_IF_ERROR(WriteFileAtomic(
      dir / "report", R"({"layers":[{"layer":0,"rank_k":3,"rank_v":4,"relative_error_k":0.1},
          {"layer":1,"rank_k":0,"rank_v":0,"rank_kv":8}]})"));
  return WriteFileAtomic(dir / "proto", R"({"layers":[{"rankK":3,"rankV":4},{"rankKv":5}]})");
}

}  // namespace
}  // namespace latentforge::checkpoint

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_corpus DIR\n");
    return 2;
  }
  const std::filesystem::path dir = argv[1];
  namespace checkpoint = latentforge::checkpoint;
  for (const absl::Status& status :
       {checkpoint::WriteSafetensors(dir / "safetensors"), checkpoint::WriteConfigs(dir / "config"),
        checkpoint::WriteManifests(dir / "manifest"),
        checkpoint::WriteRankProfiles(dir / "rank_profile")}) {
    if (status.ok()) continue;
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}

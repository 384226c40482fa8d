// Writes the seed corpora of the fuzzers: write_corpus DIR makes a folder in DIR for each but
// rpc_fuzzer, whose inputs are calls in a form of its own.
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

absl::Status WriteJobSpecs(const std::filesystem::path& dir) {
  LF_RETURN_IF_ERROR(CreateDirectories(dir));
  Json spec = {{"source", {{"uri", "/m"}}},
               {"budget", {{"kvBudget", 0.5}}},
               {"calibration", {{"corpora", {{{"uri", "file:///c.txt"}}}}}},
               {"output", {{"uri", "/o"}}}};
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "smallest", WriteJson(spec)));
  Json low_rank = spec;
  low_rank["method"] = "METHOD_LOW_RANK";
  low_rank["budget"] = {{"parameterRatio", 0.3}};
  low_rank["factorization"] = {{"preconditioner", "PRECONDITIONER_DIAGONAL_HESSIAN"},
                               {"allocation", "RANK_ALLOCATION_UNIFORM"},
                               {"rankMultiple", 8}};
  low_rank["lowRank"] = {{"layout", "FACTOR_LAYOUT_PLAIN"},
                         {"queryKey", "JOINT_MODE_LOCAL"},
                         {"valueOutput", "JOINT_MODE_LOCAL"},
                         {"mlp", "MLP_COMPRESSION_ALTERNATION"},
                         {"biasUpdate", true},
                         {"activations", "ACTIVATION_SOURCE_COMPRESSED"}};
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "low_rank", WriteJson(low_rank)));
  spec["calibration"] = {{"corpora", {{{"uri", "/c.jsonl"}, {"textField", "body"}, {"weight", 2}}}},
                         {"sequences", 8},
                         {"sequenceLength", 32},
                         {"seed", "18446744073709551615"},
                         {"labels", "FISHER_LABELS_TEXT"}};
  spec["evaluation"] = {
      {"corpus", {{"uri", "/e.txt"}}}, {"windows", 3}, {"windowLength", 32}, {"qualityGate", 1.2}};
  spec["output"]["dtype"] = "DATA_TYPE_FLOAT16";
  spec["dtype"] = "DATA_TYPE_FLOAT32";
  spec["device"] = "cuda:0";
  spec["threads"] = 2;
  spec["deadline"] = "3600s";
  spec["priority"] = "PRIORITY_HIGH";
  spec["workerSelector"] = {{"zone", "a"}};
  Json healed = spec;
  healed["budget"] = {{"maxPerplexityRatio", 1.1}};
  healed["factorization"] = {{"preconditioner", "PRECONDITIONER_FISHER"}, {"sinkWeight", 0.5}};
  healed["healing"] = {{"tokens", "4096"},      {"sequenceLength", 64}, {"batchSequences", 3},
                       {"learningRate", 1e-3},  {"warmupSteps", 0},     {"weightDecay", 0.5},
                       {"attentionLoss", 0.25}, {"evaluateEvery", 7}};
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "healed", WriteJson(healed)));
  spec["factorization"] = {
      {"preconditioner", "PRECONDITIONER_COVARIANCE"},
      {"damping", "0.25"},
      {"allocation", "RANK_ALLOCATION_PROFILE"},
      {"rankProfile",
       {{"layers", {{{"rankK", 3}, {"rankV", "4"}}, {{"layer", 1}, {"rankK", 5}}}}}}};
  return WriteFileAtomic(dir / "profile", WriteJson(spec));
}

// As FuzzedDataProvider takes them apart: a backslash and another character end a string.
absl::Status WritePageTokens(const std::filesystem::path& dir) {
  LF_RETURN_IF_ERROR(CreateDirectories(dir));
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "none", "41\\njobs:search\\njobs:speech\\n"));
  // That of the fuzzer's key for 41 in jobs:search.
  return WriteFileAtomic(dir / "own", "41\\njobs:search\\njobs:speech\\n7vSvEio8sohV7qMwfa-pXzQx");
}

absl::Status WriteNames(const std::filesystem::path& dir) {
  LF_RETURN_IF_ERROR(CreateDirectories(dir));
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "job", "jobs/jokc1dka3l897fth"));
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "attempt", "jobs/j-1/attempts/12"));
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "path", "/models/a b/../c"));
  return WriteFileAtomic(dir / "uri", "file://localhost/models/a%20b/%C3%A9");
}

absl::Status WriteWebTokens(const std::filesystem::path& dir) {
  LF_RETURN_IF_ERROR(CreateDirectories(dir));
  // {"alg":"ES256","typ":"JWT"} and {"iss":"i","aud":"a","sub":"s","exp":9999999999,
  // "tenant":"t","role":"user"}, signed by nobody; then with "alg" none.
  const std::string claims =
      ".eyJpc3MiOiJpIiwiYXVkIjoiYSIsInN1YiI6InMiLCJleHAiOjk5OTk5OTk5OTksInRlbmFudCI6InQiLCJyb2xlIjo"
      "idXNlciJ9.";
  LF_RETURN_IF_ERROR(WriteFileAtomic(
      dir / "es256",
      absl::StrCat("eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9", claims, std::string(86, 'A'))));
  LF_RETURN_IF_ERROR(
      WriteFileAtomic(dir / "none", absl::StrCat("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0", claims)));
  LF_RETURN_IF_ERROR(WriteFileAtomic(dir / "keys", R"({"keys":[{"kty":"EC","crv":"P-256","kid":"k",
      "use":"sig","alg":"ES256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
      "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]})"));
  return WriteFileAtomic(dir / "tokens",
                         absl::StrCat("# people\nsha256:", std::string(64, 'a'),
                                      " alice search user\nuri:spiffe://a/w w1 default worker\n"
                                      "cn:ops ops default admin\n"));
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
        checkpoint::WriteRankProfiles(dir / "rank_profile"),
        checkpoint::WriteJobSpecs(dir / "job_spec"),
        checkpoint::WritePageTokens(dir / "page_token"), checkpoint::WriteNames(dir / "names"),
        checkpoint::WriteWebTokens(dir / "web_token")}) {
    if (status.ok()) continue;
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}

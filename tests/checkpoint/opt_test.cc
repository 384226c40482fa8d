// What sets OPT apart from the other families, in everything that needs no tensor arithmetic.
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/strip.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/context_warning.h"
#include "checkpoint/kv_budget.h"
#include "checkpoint/linear_costs.h"
#include "checkpoint/linear_maps.h"
#include "checkpoint/model_config.h"
#include "checkpoint/source_names.h"
#include "checkpoint/tensor_catalogue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

TinyOptions Opt(const Json& changes = Json::object()) {
  return {.family = Family::kOpt, .config_overrides = changes};
}

// As OPT-350m has it.
const Json kPostNorm = {{"do_layer_norm_before", false}, {"word_embed_proj_dim", 24}};

absl::StatusOr<ModelConfig> Read(const TinyOptions& options,
                                 const std::vector<std::string>& removed = {}) {
  Json json = Json::parse(TinyConfigJson(options));
  for (const std::string& key : removed) json.erase(key);
  return ParseModelConfig(WriteJson(json));
}

ModelConfig Parse(const TinyOptions& options, const std::vector<std::string>& removed = {}) {
  const absl::StatusOr<ModelConfig> config = Read(options, removed);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : ModelConfig();
}

std::vector<std::string> Names(const ModelConfig& config) {
  std::vector<std::string> names;
  for (const TensorSpec& spec : ExpectedTensors(config)) names.push_back(spec.name);
  return names;
}

TEST(OptTest, ReadsItsOwnKeysAndTheDefaultsOfTransformers) {
  const ModelConfig config =
      Parse(Opt(), {"torch_dtype", "tie_word_embeddings", "max_position_embeddings",
                    "activation_function", "architectures"});
  EXPECT_EQ(config.family, Family::kOpt);
  EXPECT_EQ(config.model_type, "opt");
  EXPECT_EQ(config.intermediate_size, 48);
  EXPECT_EQ(config.num_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.max_position_embeddings, 2048);
  EXPECT_EQ(config.norm, NormKind::kLayer);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_TRUE(config.norm_before);
  EXPECT_FALSE(config.gated());
  EXPECT_FALSE(config.rotary());
  EXPECT_FALSE(config.projects_embeddings());
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_TRUE(config.qkv_bias && config.o_bias && config.mlp_bias);
  EXPECT_EQ(config.sliding_window.size(), 2u);

  const ModelConfig other = Parse(Opt(kPostNorm));
  EXPECT_FALSE(other.norm_before);
  EXPECT_EQ(other.embedding_size, 24);
  EXPECT_TRUE(other.projects_embeddings());
  const ModelConfig plain = Parse(Opt({{"enable_bias", false}}));
  EXPECT_FALSE(plain.qkv_bias || plain.o_bias || plain.mlp_bias);
  // An odd head, which RoPE could not turn.
  EXPECT_EQ(Parse(Opt({{"hidden_size", 36}, {"num_attention_heads", 4}})).head_dim, 9);
}

TEST(OptTest, RefusesWhatItDoesNotRunByKeyAndValue) {
  const std::pair<const char*, Json> cases[] = {{"activation_function", "gelu"},
                                                {"layer_norm_elementwise_affine", false},
                                                {"_remove_final_layer_norm", true},
                                                {"architectures", Json::array({"OPTModel"})},
                                                {"quantization_config", {{"bits", 4}}}};
  for (const auto& [key, value] : cases) {
    const absl::Status status = Read(Opt({{key, value}})).status();
    EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(absl::StrCat("\"", key, "\" is ", WriteJson(value))),
                      HasSubstr("supported is")));
  }
  const std::pair<const char*, Json> wrong[] = {{"ffn_dim", 0},
                                                {"word_embed_proj_dim", -1},
                                                {"enable_bias", 1},
                                                {"do_layer_norm_before", "no"},
                                                {"num_key_value_heads", 2},
                                                {"head_dim", 16},
                                                {"hidden_size", 33}};
  for (const auto& [key, value] : wrong) {
    const absl::Status status = Read(Opt({{key, value}})).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << key << ": " << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(key), HasSubstr("expected")));
  }
  EXPECT_THAT(std::string(Read(Opt(), {"ffn_dim"}).status().message()), HasSubstr("ffn_dim"));
}

// D = 32, F = 48, 64 tokens, 256 positions: worked out by hand.
TEST(OptTest, CountsWhatItsEquationsSay) {
  const int64_t layer = 4 * 32 * 32 + 2 * 48 * 32;
  const int64_t biases = 4 * 32 + 48 + 32;
  const int64_t norms = 2 * 2 * 32;
  const int64_t embeddings = 64 * 32 + (256 + 2) * 32;
  const ModelConfig config = Parse(Opt({{"tie_word_embeddings", true}}));
  EXPECT_EQ(NumParameters(config), 2 * (layer + biases + norms) + 2 * 32 + embeddings);
  EXPECT_EQ(DecoderLinearCosts(config).weights, 2 * layer);
  EXPECT_EQ(DecoderLinearCosts(config).biases, 2 * biases);
  EXPECT_EQ(KvValuesPerToken(config), 2 * 2 * 32);
  EXPECT_EQ(NumParameters(Parse(Opt({{"enable_bias", false}, {"tie_word_embeddings", true}}))),
            NumParameters(config) - 2 * biases);
  Json changes = kPostNorm;
  changes["tie_word_embeddings"] = true;
  // No last norm; the embedding is narrower, and two projections lead to it.
  EXPECT_EQ(NumParameters(Parse(Opt(changes))),
            NumParameters(config) - 2 * 32 - 64 * 8 + 2 * 24 * 32);
}

TEST(OptTest, HasNoGate) {
  TinyOptions options = Opt();
  options.low_rank = LowRankConfig{.ranks = {{.q = 9, .up = 12, .down = 10}, {}}};
  const ModelConfig config = Parse(options);
  for (const LinearMap& map : LinearMaps(config)) {
    EXPECT_EQ(map.present(), map.key != "gate");
    if (map.present()) continue;
    EXPECT_EQ(LargestRank(map, true), 0);
    EXPECT_EQ(LargestRank(map, false), 0);
  }
  EXPECT_THAT(Names(config), Not(Contains(HasSubstr("gate"))));
  EXPECT_EQ(DecoderLinearCosts(config).weights, DecoderLinearCosts(Parse(Opt())).weights - 32 * 32 -
                                                    2 * 48 * 32 + 9 * (64 - 9) + 12 * (80 - 12) +
                                                    10 * (80 - 10));
  options.low_rank->ranks[1].gate = 1;
  const absl::Status status = Read(options).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("\"gate\" is 1"));
}

// As transformers saves OPTForCausalLM.
TEST(OptTest, CheckpointsHaveTheNamesOfTransformers) {
  const ModelConfig config = Parse(Opt(kPostNorm));
  const std::pair<const char*, const char*> names[] = {
      {"model.embed_tokens.weight", "model.decoder.embed_tokens.weight"},
      {"model.embed_positions.weight", "model.decoder.embed_positions.weight"},
      {"model.project_in.weight", "model.decoder.project_in.weight"},
      {"model.project_out.weight", "model.decoder.project_out.weight"},
      {"model.norm.bias", "model.decoder.final_layer_norm.bias"},
      {"model.layers.7.input_layernorm.weight",
       "model.decoder.layers.7.self_attn_layer_norm.weight"},
      {"model.layers.7.post_attention_layernorm.bias",
       "model.decoder.layers.7.final_layer_norm.bias"},
      {"model.layers.7.self_attn.q_proj.bias", "model.decoder.layers.7.self_attn.q_proj.bias"},
      {"model.layers.7.self_attn.o_proj.weight",
       "model.decoder.layers.7.self_attn.out_proj.weight"},
      {"model.layers.7.mlp.up_proj.weight", "model.decoder.layers.7.fc1.weight"},
      {"model.layers.7.mlp.down_proj.bias", "model.decoder.layers.7.fc2.bias"},
      {"lm_head.weight", "lm_head.weight"}};
  for (const auto& [ours, theirs] : names) {
    EXPECT_EQ(SourceName(config, ours), theirs);
    EXPECT_EQ(BareSourceName(config, ours), absl::StripPrefix(theirs, "model."));
  }
  TinyOptions converted = Opt();
  converted.ranks = {{4, 32, 0}, {32, 3, 0}};
  EXPECT_EQ(SourceName(Parse(converted), "model.layers.7.mlp.up_proj.weight"),
            "model.layers.7.mlp.up_proj.weight");
  EXPECT_EQ(SourceName(Parse({}), "model.norm.weight"), "model.norm.weight");
  EXPECT_EQ(BareSourceName(Parse(converted), "model.norm.weight"), "model.norm.weight");
  EXPECT_EQ(BareSourceName(Parse({}), "model.norm.weight"), "model.norm.weight");
}

TEST(OptTest, OpensCheckpointsAndFindsTensorsByOurNames) {
  TinyOptions latent = Opt(kPostNorm);
  latent.ranks = {{4, 32, 0}, {32, 3, 0}};
  TinyOptions low_rank = Opt();
  low_rank.low_rank = LowRankConfig{.ranks = {{.q = 9, .up = 12, .down = 10}, {}}};
  for (const TinyOptions& options : {Opt(), Opt(kPostNorm), latent, low_rank}) {
    const std::filesystem::path dir = NewTestDirectory("opt") / "model";
    ASSERT_TRUE(WriteTinyCheckpoint(dir, options).ok());
    const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(dir);
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(opened->tensor_names(), Names(opened->config()));
    for (const std::string& name : opened->tensor_names()) {
      EXPECT_TRUE(opened->Tensor(name).ok()) << name;
    }
    EXPECT_TRUE(opened->Digest().ok());
    const absl::Status missing = opened->Tensor(LayerTensor(2, "mlp.up_proj.weight")).status();
    EXPECT_TRUE(absl::IsNotFound(missing));
    EXPECT_THAT(std::string(missing.message()),
                HasSubstr(opened->config().converted() ? "model.layers.2.mlp.up_proj.weight"
                                                       : "model.decoder.layers.2.fc1.weight"));
  }
}

// As the first OPT checkpoints were saved.
TEST(OptTest, OpensCheckpointsOfTheBareModel) {
  TinyOptions options = Opt({{"tie_word_embeddings", true}});
  options.shards = 2;
  const std::filesystem::path whole = NewTestDirectory("opt") / "model";
  ASSERT_TRUE(WriteTinyCheckpoint(whole, options).ok());
  options.bare = true;
  const std::filesystem::path bare = NewTestDirectory("opt") / "model";
  ASSERT_TRUE(WriteTinyCheckpoint(bare, options).ok());
  const absl::StatusOr<Checkpoint> expected = Checkpoint::Open(whole);
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(bare);
  ASSERT_TRUE(expected.ok()) << expected.status();
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->tensor_names(), Names(opened->config()));
  for (const std::string& name : opened->tensor_names()) {
    ASSERT_TRUE(opened->Tensor(name).ok()) << name;
    EXPECT_EQ(opened->Tensor(name)->bytes, expected->Tensor(name)->bytes) << name;
  }
  const absl::Status missing = opened->Tensor(LayerTensor(2, "mlp.up_proj.weight")).status();
  EXPECT_THAT(std::string(missing.message()), HasSubstr("no tensor \"decoder.layers.2.fc1.weight"));
}

TEST(OptTest, TextsBeyondItsPositionsCannotRun) {
  const ModelConfig config = Parse(Opt());
  EXPECT_TRUE(CheckContext(config, "windows", 256).ok());
  const absl::Status status = CheckContext(config, "windows", 257);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("windows of 257 tokens are longer than the "
                                                       "model's context of 256"));
  EXPECT_TRUE(CheckContext(Parse({}), "windows", 100000).ok());
}

}  // namespace
}  // namespace latentforge::checkpoint

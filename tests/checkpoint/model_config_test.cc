#include "checkpoint/model_config.h"

#include <functional>
#include <string>

#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

using ::testing::Eq;
using ::testing::HasSubstr;
using Windows = std::vector<std::optional<int64_t>>;

// The tiny config of a family with some keys changed. `removed` keys go.
std::string Config(Family family, const Json& changes,
                   const std::vector<std::string>& removed = {}) {
  TinyOptions options;
  options.family = family;
  options.num_layers = 4;
  options.config_overrides = changes;
  Json json = Json::parse(TinyConfigJson(options));
  for (const std::string& key : removed) json.erase(key);
  return WriteJson(json);
}

ModelConfig Parse(Family family, const Json& changes = Json::object(),
                  const std::vector<std::string>& removed = {}) {
  absl::StatusOr<ModelConfig> config = ParseModelConfig(Config(family, changes, removed));
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : ModelConfig();
}

absl::Status Error(Family family, const Json& changes,
                   const std::vector<std::string>& removed = {}) {
  return ParseModelConfig(Config(family, changes, removed)).status();
}

TEST(ModelConfigTest, ReadsSizesAndWhatEachFamilyFixes) {
  for (const Family family : {Family::kLlama, Family::kMistral, Family::kQwen2, Family::kQwen3}) {
    const ModelConfig config = Parse(family);
    EXPECT_EQ(config.family, family);
    EXPECT_EQ(config.model_type, FamilyName(family));
    EXPECT_EQ(config.hidden_size, 32);
    EXPECT_EQ(config.num_layers, 4);
    EXPECT_EQ(config.kv_width(), 16);
    EXPECT_EQ(config.q_width(), 32);
    EXPECT_EQ(config.qkv_bias, family == Family::kQwen2);
    EXPECT_EQ(config.qk_norm, family == Family::kQwen3);
    EXPECT_FALSE(config.o_bias);
    EXPECT_FALSE(config.mlp_bias);
    EXPECT_THAT(config.sliding_window, Eq(Windows(4)));
    EXPECT_FALSE(config.latent.has_value());
  }
}

TEST(ModelConfigTest, FillsTheDefaultsOfTransformers) {
  const std::vector<std::string> absent = {"num_key_value_heads",
                                           "head_dim",
                                           "rope_theta",
                                           "rms_norm_eps",
                                           "max_position_embeddings",
                                           "torch_dtype",
                                           "tie_word_embeddings",
                                           "hidden_act",
                                           "architectures"};
  const ModelConfig llama = Parse(Family::kLlama, Json::object(), absent);
  EXPECT_EQ(llama.num_kv_heads, 4);
  EXPECT_EQ(llama.head_dim, 8);
  EXPECT_EQ(llama.rope_theta, 10000);
  EXPECT_EQ(llama.norm_eps, 1e-6);
  EXPECT_EQ(llama.max_position_embeddings, 2048);
  EXPECT_EQ(llama.dtype, DType::kF32);
  EXPECT_FALSE(llama.tie_word_embeddings);

  const Json eight = {{"num_attention_heads", 8}};
  EXPECT_EQ(Parse(Family::kMistral, eight, absent).num_kv_heads, 8);
  EXPECT_EQ(Parse(Family::kMistral, eight, absent).max_position_embeddings, 131072);
  EXPECT_EQ(Parse(Family::kMistral, {{"num_key_value_heads", nullptr}}).num_kv_heads, 4);
  const Json many = {{"num_attention_heads", 32}, {"hidden_size", 64}};
  EXPECT_EQ(Parse(Family::kQwen2, many, absent).num_kv_heads, 32);
  EXPECT_EQ(Parse(Family::kQwen2, many, absent).head_dim, 2);
  EXPECT_EQ(Parse(Family::kQwen3, many, absent).head_dim, 128);
  EXPECT_EQ(Parse(Family::kQwen3, many, absent).max_position_embeddings, 32768);
}

TEST(ModelConfigTest, ReadsBiasesWhereTheFamilyHasTheSwitch) {
  const Json biased = {{"attention_bias", true}};
  for (const Family family : {Family::kLlama, Family::kQwen3}) {
    EXPECT_TRUE(Parse(family, biased).qkv_bias);
    EXPECT_TRUE(Parse(family, biased).o_bias);
  }
  EXPECT_FALSE(Parse(Family::kQwen2, biased).o_bias);
  EXPECT_TRUE(Parse(Family::kLlama, {{"mlp_bias", true}}).mlp_bias);
  EXPECT_THAT(std::string(Error(Family::kMistral, biased).message()), HasSubstr("attention_bias"));
  EXPECT_TRUE(absl::IsUnimplemented(Error(Family::kQwen2, {{"attention_bias", false}})));
  EXPECT_TRUE(absl::IsUnimplemented(Error(Family::kQwen2, {{"mlp_bias", true}})));
}

TEST(ModelConfigTest, ReadsRopeInTheStylesOfTransformers4And5) {
  const Json llama3 = {{"rope_type", "llama3"},
                       {"factor", 32.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 8192}};
  Json with_theta = llama3;
  with_theta["rope_theta"] = 500000.0;
  for (const Json& changes : {Json{{"rope_scaling", llama3}, {"rope_theta", 500000.0}},
                              Json{{"rope_parameters", with_theta}, {"rope_theta", nullptr}},
                              Json{{"rope_parameters", with_theta}, {"rope_theta", 7.0}}}) {
    const ModelConfig config = Parse(Family::kLlama, changes);
    EXPECT_EQ(config.rope_theta, 500000);
    EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::kLlama3);
    EXPECT_EQ(config.rope_scaling.factor, 32);
    EXPECT_EQ(config.rope_scaling.high_freq_factor, 4);
    EXPECT_EQ(config.rope_scaling.original_max_position_embeddings, 8192);
  }
  Json no_original = llama3;
  no_original.erase("original_max_position_embeddings");
  EXPECT_EQ(Parse(Family::kLlama, {{"rope_scaling", no_original}})
                .rope_scaling.original_max_position_embeddings,
            256);
  const Json plain = {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e6}}}};
  EXPECT_EQ(Parse(Family::kQwen3, plain).rope_theta, 1e6);
  EXPECT_EQ(Parse(Family::kQwen3, plain).rope_scaling.kind, RopeScaling::Kind::kNone);
  EXPECT_EQ(Parse(Family::kQwen3, {{"rope_scaling", nullptr}}).rope_theta, 10000);
}

TEST(ModelConfigTest, RefusesRopeThatWeDoNotRun) {
  for (const char* type : {"linear", "dynamic", "yarn", "longrope", "mrope", "su"}) {
    for (const char* key : {"rope_type", "type"}) {
      const absl::Status status =
          Error(Family::kQwen2, {{"rope_scaling", {{key, type}, {"factor", 2.0}}}});
      EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(type));
    }
  }
  EXPECT_TRUE(absl::IsUnimplemented(Error(Family::kLlama, {{"partial_rotary_factor", 0.5}})));
  EXPECT_TRUE(absl::IsUnimplemented(
      Error(Family::kLlama, {{"rope_parameters", {{"partial_rotary_factor", 0.25}}}})));
  EXPECT_TRUE(absl::IsUnimplemented(
      Error(Family::kQwen3, {{"rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}}})));
  const Json bad = {{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 4.0}};
  EXPECT_THAT(std::string(Error(Family::kLlama, {{"rope_scaling", bad}}).message()),
              HasSubstr("lacks \"high_freq_factor\""));
  Json inverted = bad;
  inverted["high_freq_factor"] = 4.0;
  EXPECT_TRUE(absl::IsInvalidArgument(Error(Family::kLlama, {{"rope_scaling", inverted}})));
  for (const Json& value : {Json(0), Json(-1), Json("x"), Json(true)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Error(Family::kLlama, {{"rope_theta", value}})));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(Error(Family::kLlama, {{"rope_scaling", "llama3"}})));
  EXPECT_TRUE(absl::IsInvalidArgument(
      Error(Family::kLlama, {{"rope_scaling", {{"rope_type", "default"}}},
                             {"rope_parameters", {{"rope_type", "llama3"}}}})));
}

TEST(ModelConfigTest, ReadsSlidingWindowsAsEachFamilyMeansThem) {
  EXPECT_THAT(Parse(Family::kMistral, {{"sliding_window", 64}}).sliding_window, Eq(Windows(4, 64)));
  EXPECT_THAT(Parse(Family::kMistral, Json::object(), {"sliding_window"}).sliding_window,
              Eq(Windows(4, 4096)));
  for (const Family family : {Family::kQwen2, Family::kQwen3}) {
    EXPECT_THAT(Parse(family, {{"sliding_window", 64}}).sliding_window, Eq(Windows(4)));
    const Json on = {
        {"sliding_window", 64}, {"use_sliding_window", true}, {"max_window_layers", 3}};
    EXPECT_THAT(Parse(family, on).sliding_window, Eq(Windows{{}, {}, {}, 64}));
    // max_window_layers is 28 where it is absent.
    EXPECT_THAT(Parse(family, on, {"max_window_layers"}).sliding_window, Eq(Windows(4)));
    Json typed = on;
    typed["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention",
                            "full_attention"};
    EXPECT_THAT(Parse(family, typed).sliding_window, Eq(Windows{64, {}, 64, {}}));
    Json null_window = on;
    null_window["sliding_window"] = nullptr;
    EXPECT_THAT(Parse(family, null_window).sliding_window, Eq(Windows(4)));
    typed["use_sliding_window"] = false;
    EXPECT_TRUE(absl::IsInvalidArgument(Error(family, typed)));
    typed["layer_types"] = Json::array({"full_attention"});
    EXPECT_THAT(std::string(Error(family, typed).message()), HasSubstr("a list of 4 strings"));
    typed["layer_types"] = {"full_attention", "full_attention", "full_attention", "chunked"};
    EXPECT_TRUE(absl::IsUnimplemented(Error(family, typed)));
    typed["layer_types"] = {"full_attention", 1, "full_attention", "full_attention"};
    EXPECT_TRUE(absl::IsInvalidArgument(Error(family, typed)));
  }
  EXPECT_TRUE(absl::IsUnimplemented(Error(Family::kLlama, {{"sliding_window", 64}})));
  for (const Json& value : {Json(0), Json(-4), Json("64"), Json(64.5)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Error(Family::kMistral, {{"sliding_window", value}})));
  }
}

TEST(ModelConfigTest, RefusesOptionsThatWeDoNotRunWithKeyAndValue) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"model_type", "gemma2"},
      {"model_type", "mixtral"},
      {"architectures", Json::array({"LlamaForSequenceClassification"})},
      {"auto_map", {{"AutoModel", "modeling.Model"}}},
      {"hidden_act", "gelu"},
      {"pretraining_tp", 2},
      {"quantization_config", {{"quant_method", "gptq"}}},
      {"attn_logit_softcapping", 50.0},
      {"final_logit_softcapping", 30.0},
      {"num_experts", 8},
      {"num_local_experts", 8},
      {"use_qk_norm", true},
      {"clip_qkv", 8.0},
      {"logit_scale", 0.0625},
      {"attention_multiplier", 0.5},
      {"position_embedding_type", "alibi"},
      {"rope_interleaved", true},
      {"torch_dtype", "float8_e4m3fn"},
      {"torch_dtype", "float64"},
      {"dtype", "int8"}};
  for (const auto& [key, value] : cases) {
    const absl::Status status = Error(Family::kLlama, {{key, value}});
    EXPECT_TRUE(absl::IsUnimplemented(status)) << key << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
    if (value.is_string()) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(value.get<std::string>()));
    }
  }
  // The same keys, switched off.
  Parse(Family::kLlama, {{"quantization_config", nullptr},
                         {"attn_logit_softcapping", nullptr},
                         {"num_experts", 0},
                         {"rope_interleaved", false},
                         {"is_encoder_decoder", false},
                         {"pruned_heads", Json::object()},
                         {"pretraining_tp", 1},
                         {"logit_scale", 1.0},
                         {"some_unknown_key", {1, 2}}});
}

TEST(ModelConfigTest, RefusesMissingMistypedAndAbsurdSizes) {
  for (const char* key : {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "vocab_size"}) {
    const absl::Status status = Error(Family::kLlama, Json::object(), {key});
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << key;
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
  }
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings"}) {
    for (const Json& value : {Json(0), Json(-8), Json("8"), Json(8.5), Json(true), Json::array(),
                              Json(int64_t{1} << 62), Json(~uint64_t{0})}) {
      const absl::Status status = Error(Family::kLlama, {{key, value}});
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << key << " " << value << ": " << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(key));
    }
  }
  EXPECT_THAT(std::string(Error(Family::kLlama, {{"num_key_value_heads", 3}}).message()),
              HasSubstr("a multiple of \"num_key_value_heads\", 3"));
  EXPECT_THAT(std::string(Error(Family::kLlama, {{"hidden_size", 33}}, {"head_dim"}).message()),
              HasSubstr("hidden_size"));
  EXPECT_THAT(std::string(Error(Family::kLlama, {{"head_dim", 7}}).message()), HasSubstr("even"));
  EXPECT_TRUE(absl::IsInvalidArgument(
      Error(Family::kLlama, {{"head_dim", 1 << 20}, {"num_attention_heads", 1 << 20}})));
  for (const Json& value : {Json(0), Json(1), Json(-1e-6), Json("1e-6")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Error(Family::kLlama, {{"rms_norm_eps", value}})));
  }
  for (const char* text : {"", "[]", "{", "{\"model_type\":1}", "{\"a\":1,\"a\":2}", "\xff"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseModelConfig(text).status())) << text;
  }
}

class LatentConfigTest : public ::testing::Test {
 protected:
  // Parses an artifact whose "latentforge" object has been changed.
  absl::StatusOr<ModelConfig> With(const std::function<void(Json&)>& change) {
    TinyOptions options;
    options.family = Family::kQwen2;
    options.ranks = {{4, 16, 0}, {1, 2, 0}};
    Json json = Json::parse(TinyConfigJson(options));
    change(json);
    return ParseModelConfig(WriteJson(json));
  }
};

TEST_F(LatentConfigTest, ReadsOurOwnArtifacts) {
  const absl::StatusOr<ModelConfig> separate = With([](Json&) {});
  ASSERT_TRUE(separate.ok()) << separate.status();
  EXPECT_EQ(separate->family, Family::kQwen2);
  EXPECT_EQ(separate->model_type, "latentforge");
  EXPECT_TRUE(separate->qkv_bias);
  EXPECT_EQ(separate->latent->base_model_type, "qwen2");
  EXPECT_FALSE(separate->latent->joint);
  EXPECT_EQ(separate->latent->ranks, (std::vector<LayerRanks>{{4, 16, 0}, {1, 2, 0}}));
  const absl::StatusOr<ModelConfig> joint = With([](Json& json) {
    json["latentforge"]["latent"] = "joint";
    json["latentforge"]["ranks"] = {{32}, {5}};
    json["auto_map"] = {{"AutoModelForCausalLM", "modeling_latentforge.LatentforgeForCausalLM"}};
  });
  ASSERT_TRUE(joint.ok()) << joint.status();
  EXPECT_TRUE(joint->latent->joint);
  EXPECT_EQ(joint->latent->ranks, (std::vector<LayerRanks>{{0, 0, 32}, {0, 0, 5}}));
}

TEST_F(LatentConfigTest, RefusesWrongRanksVersionsAndFamilies) {
  for (const Json& ranks :
       {Json(nullptr), Json(5), Json::parse("[[4,4]]"), Json::parse("[[4,4],[0,4]]"),
        Json::parse("[[4,4],[4,17]]"), Json::parse("[[4,4],[4]]"), Json::parse("[[4,4],[4,-1]]"),
        Json::parse("[[4,4],[4,1.5]]"), Json::parse("[[4,4],[4,18446744073709551615]]"),
        Json::parse("[[4,4],4]")}) {
    const absl::Status status =
        With([&](Json& json) { json["latentforge"]["ranks"] = ranks; }).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << ranks;
    EXPECT_THAT(std::string(status.message()), HasSubstr("ranks"));
  }
  EXPECT_TRUE(absl::IsUnimplemented(
      With([](Json& json) { json["latentforge"]["format_version"] = 3; }).status()));
  EXPECT_TRUE(absl::IsUnimplemented(
      With([](Json& json) { json["latentforge"]["base_model_type"] = "gemma"; }).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      With([](Json& json) { json["latentforge"]["latent"] = "both"; }).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(With([](Json& json) { json["latentforge"]["extra"] = 1; }).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(With([](Json& json) { json["model_type"] = "qwen2"; }).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(With([](Json& json) { json.erase("latentforge"); }).status()));
}

}  // namespace
}  // namespace latentforge::checkpoint

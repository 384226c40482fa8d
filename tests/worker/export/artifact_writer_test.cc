#include "worker/export/artifact_writer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/sha256.h"
#include "checkpoint/tensor_catalogue.h"
#include "tests/checkpoint/fixture.h"
#include "worker/export/embedded_files.h"
#include "worker/export/manifest.h"
#include "worker/export/tensor_cast.h"

namespace latentforge::exporter {
namespace {

namespace fs = std::filesystem;
using checkpoint::Checkpoint;
using checkpoint::DType;
using checkpoint::Family;
using testing::Contains;
using testing::HasSubstr;
using testing::StartsWith;

constexpr int64_t kHidden = 32;
constexpr int64_t kWidth = 16;

// One value everywhere, exact in every type; tells layers and factors apart.
at::Tensor Constant(int64_t rows, int64_t columns, double value) {
  return at::full({rows, columns}, value, at::kDouble);
}

// A tiny source, an output beside it and a request for ranks (5, 16 dense), (3, 7).
class ArtifactWriterTest : public testing::Test {
 protected:
  void SetUp() override { Prepare({.family = Family::kQwen2}); }

  void Prepare(checkpoint::TinyOptions options) {
    root_ = checkpoint::NewTestDirectory("artifact");
    ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(root_ / "source", options).ok());
    ASSERT_TRUE(WriteFileAtomic(root_ / "source" / "tokenizer.json", "{\"t\":1}").ok());
    ASSERT_TRUE(WriteFileAtomic(root_ / "source" / "generation_config.json", "{}").ok());
    auto source = Checkpoint::Open(root_ / "source");
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = std::make_unique<Checkpoint>(std::move(source).value());
    request_.output = root_ / "out";
    request_.job_id = "job-7";
    request_.dtype = DType::kF32;
    request_.ranks = {{.k = 5, .v = kWidth}, {.k = 3, .v = 7}};
    request_.source_digest = "source";
    request_.settings_digest = "settings";
  }

  // Factors for request_.ranks.
  absl::StatusOr<ConvertedLayer> Layer(int layer) const {
    const checkpoint::LayerRanks& ranks = request_.ranks[layer];
    ConvertedLayer converted;
    if (request_.joint && ranks.joint < 2 * kWidth) {
      converted.kv_down = Constant(ranks.joint, kHidden, layer + 0.5);
      converted.k_up = Constant(kWidth, ranks.joint, layer + 0.25);
      converted.v_up = Constant(kWidth, ranks.joint, layer + 0.125);
    } else if (!request_.joint) {
      if (ranks.k < kWidth) {
        converted.k_down = Constant(ranks.k, kHidden, layer + 0.5);
        converted.k_up = Constant(kWidth, ranks.k, layer + 0.25);
      }
      if (ranks.v < kWidth) {
        converted.v_down = Constant(ranks.v, kHidden, layer + 0.75);
        converted.v_up = Constant(kWidth, ranks.v, layer + 0.125);
      }
    }
    return converted;
  }

  static absl::StatusOr<Report> SmallReport() {
    Report report;
    report.kv_bytes_per_token_base = 128;
    report.kv_bytes_per_token_converted = 62;
    report.source.uri = "file:///models/tiny";
    report.versions = {{"latentforge", "0.1.0"}};
    return report;
  }

  absl::StatusOr<PublishedArtifact> Write(const LayerSource& layers) {
    return WriteArtifact(*source_, request_, layers, SmallReport);
  }
  absl::StatusOr<PublishedArtifact> Write() {
    return Write([this](int layer) { return Layer(layer); });
  }

  // Nothing at the output and nothing left beside it.
  void ExpectNothingLeft() {
    EXPECT_EQ(ListDirectory(root_).value(), std::vector<std::string>{"source"});
  }

  fs::path root_;
  std::unique_ptr<Checkpoint> source_;
  ArtifactRequest request_;
};

std::string BytesIn(const Checkpoint& checkpoint, absl::string_view name) {
  const auto view = checkpoint.Tensor(name);
  if (!view.ok()) return view.status().ToString();
  return {reinterpret_cast<const char*>(view->bytes.data()), view->bytes.size()};
}

TEST_F(ArtifactWriterTest, WritesWhatOurReaderReads) {
  const auto artifact = Write();
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  const auto converted = Checkpoint::Open(request_.output);
  ASSERT_TRUE(converted.ok()) << converted.status();
  ASSERT_TRUE(converted->config().latent.has_value());
  EXPECT_EQ(converted->config().latent->ranks, request_.ranks);
  EXPECT_EQ(converted->config().model_type, "latentforge");
  const std::string prefix = "model.layers.0.self_attn.";
  for (const auto& [ours, theirs] :
       std::vector<std::pair<std::string, std::string>>{{"k_up_proj.bias", "k_proj.bias"},
                                                        {"v_proj.bias", "v_proj.bias"},
                                                        {"v_proj.weight", "v_proj.weight"},
                                                        {"q_proj.weight", "q_proj.weight"}}) {
    EXPECT_EQ(BytesIn(*converted, prefix + ours), BytesIn(*source_, prefix + theirs)) << ours;
  }
  const std::string down = BytesIn(*converted, "model.layers.1.self_attn.k_down_proj.weight");
  EXPECT_EQ(down, BytesOf(Constant(3, kHidden, 1.5).to(at::kFloat)));
  EXPECT_EQ(ReadFile(request_.output / "tokenizer.json").value(), "{\"t\":1}");
  for (const EmbeddedFile& file : ModelCode()) {
    EXPECT_EQ(ReadFile(request_.output / std::string(file.name)).value(), file.contents);
  }
}

TEST_F(ArtifactWriterTest, ManifestDescribesEveryFile) {
  const auto artifact = Write();
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  const auto manifest = VerifyArtifact(request_.output);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->job_id, "job-7");
  EXPECT_EQ(manifest->files.size() + 1, ListDirectory(request_.output).value().size());
  EXPECT_EQ(artifact->manifest_sha256, Sha256File(request_.output / kManifestName).value());
  const auto found = FindPublished(request_.output, "job-7");
  ASSERT_TRUE(found.ok() && found->has_value()) << found.status();
  EXPECT_EQ((*found)->manifest_sha256, artifact->manifest_sha256);
  EXPECT_EQ((*found)->bytes, artifact->bytes);
  EXPECT_EQ(FindPublished(request_.output, "job-8").value(), std::nullopt);
  EXPECT_EQ(FindPublished(root_ / "nowhere", "job-7").value(), std::nullopt);
  ASSERT_TRUE(WriteFileAtomic(request_.output / "README.md", "changed").ok());
  EXPECT_TRUE(absl::IsDataLoss(FindPublished(request_.output, "job-7").status()));
}

TEST_F(ArtifactWriterTest, KeepsTheKeysOfTheConfiguration) {
  Prepare({.family = Family::kLlama, .config_overrides = {{"zzz_extra", {1, 2}}}});
  ASSERT_TRUE(Write().ok());
  const Json before = ParseJson(source_->config_json()).value();
  const Json after = ParseJson(ReadFile(request_.output / "config.json").value()).value();
  for (const auto& [key, value] : before.items()) {
    if (key == "model_type" || key == "architectures") continue;
    EXPECT_EQ(after[key], value) << key;
  }
  EXPECT_EQ(after["auto_map"]["AutoModelForCausalLM"],
            "modeling_latentforge.LatentforgeForCausalLM");
  EXPECT_EQ(after["latentforge"]["base_model_type"], "llama");
  EXPECT_EQ(after["latentforge"]["ranks"], (Json{{5, 16}, {3, 7}}));
}

TEST_F(ArtifactWriterTest, JointLatentAndShards) {
  request_.joint = true;
  request_.ranks = {{.joint = 9}, {.joint = 2 * kWidth}};
  request_.shard_bytes = 6000;
  const auto artifact = Write();
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_TRUE(fs::exists(request_.output / "model.safetensors.index.json"));
  const auto converted = Checkpoint::Open(request_.output);
  ASSERT_TRUE(converted.ok()) << converted.status();
  EXPECT_TRUE(converted->config().latent->joint);
  EXPECT_EQ(BytesIn(*converted, "model.layers.0.self_attn.kv_down_proj.weight"),
            BytesOf(Constant(9, kHidden, 0.5).to(at::kFloat)));
  EXPECT_EQ(BytesIn(*converted, "model.layers.1.self_attn.k_proj.weight"),
            BytesIn(*source_, "model.layers.1.self_attn.k_proj.weight"));
}

// A source of Qwen2 (biases of q, k and v) and a request for low-rank q, k, gate and down.
class LowRankWriterTest : public ArtifactWriterTest {
 protected:
  void SetUp() override {
    ArtifactWriterTest::SetUp();
    request_.low_rank =
        checkpoint::LowRankConfig{.ranks = {{.q = 5, .gate = 6}, {.k = 3, .down = 7}}};
  }

  // Channels from the last to the first, and constant factors.
  LowRankMap Map(int64_t out, int64_t in, int64_t rank) const {
    const bool identity = request_.low_rank->block_identity;
    LowRankMap map{.down = Constant(rank, identity ? in - rank : in, 0.5),
                   .up = Constant(out, rank, 0.25)};
    if (identity) map.order = at::arange(in - 1, -1, -1, at::kLong);
    if (request_.low_rank->bias) map.bias = at::full({out}, 0.125, at::kDouble);
    return map;
  }

  absl::StatusOr<ConvertedLayer> LowRank(int layer) const {
    ConvertedLayer converted;
    if (layer == 0) converted.low_rank = {.q = Map(32, 32, 5), .gate = Map(48, 32, 6)};
    if (layer == 1) converted.low_rank = {.k = Map(16, 32, 3), .down = Map(32, 48, 7)};
    return converted;
  }

  absl::StatusOr<PublishedArtifact> WriteLowRank() {
    return Write([this](int layer) { return LowRank(layer); });
  }

  // The error of writing layer 0 with its map of queries changed.
  absl::Status WithQuery(const std::function<void(LowRankMap&)>& change) {
    return Write([&, this](int layer) {
             auto converted = LowRank(layer);
             if (layer == 0) change(converted->low_rank.q);
             return converted;
           })
        .status();
  }
};

TEST_F(LowRankWriterTest, WritesWhatOurReaderReads) {
  request_.dtype = DType::kBF16;
  ASSERT_TRUE(WriteLowRank().ok());
  const auto converted = Checkpoint::Open(request_.output);
  ASSERT_TRUE(converted.ok()) << converted.status();
  const auto& low_rank = converted->config().low_rank;
  ASSERT_TRUE(low_rank.has_value());
  EXPECT_EQ(low_rank->ranks, request_.low_rank->ranks);
  EXPECT_EQ(low_rank->base_model_type, "qwen2");
  EXPECT_FALSE(converted->config().latent.has_value());
  EXPECT_EQ(BytesIn(*converted, "model.layers.1.mlp.down_proj.order"),
            BytesOf(at::arange(47, -1, -1, at::kInt)));
  EXPECT_EQ(BytesIn(*converted, "model.layers.1.mlp.down_proj.down.weight"),
            BytesOf(Constant(7, 48 - 7, 0.5).to(at::kBFloat16)));
  EXPECT_EQ(BytesIn(*converted, "model.layers.1.mlp.down_proj.up.weight"),
            BytesOf(Constant(32, 7, 0.25).to(at::kBFloat16)));
  const Json config = ParseJson(converted->config_json()).value();
  EXPECT_EQ(config["latentforge"]["format_version"], 2);
  EXPECT_EQ(config["latentforge"]["method"], "low_rank");
  EXPECT_TRUE(converted->Digest().ok());
}

TEST_F(LowRankWriterTest, BiasesAreTheSourcesWhereNoneIsGiven) {
  ASSERT_TRUE(WriteLowRank().ok());
  const auto converted = Checkpoint::Open(request_.output);
  ASSERT_TRUE(converted.ok()) << converted.status();
  const std::string prefix = "model.layers.0.self_attn.";
  EXPECT_EQ(BytesIn(*converted, prefix + "q_proj.up.bias"),
            BytesIn(*source_, prefix + "q_proj.bias"));
  EXPECT_EQ(BytesIn(*converted, prefix + "k_proj.bias"), BytesIn(*source_, prefix + "k_proj.bias"));
  EXPECT_FALSE(converted->Tensor("model.layers.0.mlp.gate_proj.up.bias").ok());
}

TEST_F(LowRankWriterTest, BiasesThatAreGivenAreWritten) {
  request_.low_rank->block_identity = false;
  request_.low_rank->bias = true;
  ASSERT_TRUE(WriteLowRank().ok());
  const auto converted = Checkpoint::Open(request_.output);
  ASSERT_TRUE(converted.ok()) << converted.status();
  for (const char* name : {"self_attn.q_proj", "mlp.gate_proj"}) {
    const std::string module = absl::StrCat("model.layers.0.", name);
    const std::string bias = BytesIn(*converted, module + ".up.bias");
    EXPECT_EQ(bias, BytesOf(at::full({int64_t(bias.size() / 4)}, 0.125, at::kFloat))) << name;
    EXPECT_FALSE(converted->Tensor(module + ".order").ok());
  }
}

TEST_F(LowRankWriterTest, RefusesFactorsThatDoNotFit) {
  const auto expect = [](const absl::Status& status, const char* problem) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(problem));
  };
  expect(WithQuery([](LowRankMap& map) { map.up = at::Tensor(); }),
         "q_proj.up.weight is not given");
  expect(WithQuery([](LowRankMap& map) { map.order = at::Tensor(); }), "q_proj.order is not given");
  expect(WithQuery([](LowRankMap& map) { map.down = Constant(5, 32, 1); }),
         "[5, 32], expected floating point of shape [5, 27]");
  expect(WithQuery([](LowRankMap& map) { map.order = map.order.to(at::kFloat); }),
         "expected integers of shape [32]");
  const absl::Status twice = WithQuery([](LowRankMap& map) { map.order[7] = 31; });
  EXPECT_TRUE(absl::IsDataLoss(twice)) << twice;
  EXPECT_THAT(std::string(twice.message()), HasSubstr("q_proj.order\" has 31 at element 7"));
  request_.low_rank->ranks[0].q = 0;
  expect(WriteLowRank().status(),
         "layer 0: factors of self_attn.q_proj are given, but its rank is 0");
  request_.low_rank->ranks[0].q = 5;
  // A map without a bias in the source, and none given.
  request_.low_rank->bias = true;
  const absl::Status status = Write([this](int layer) {
                                auto converted = LowRank(layer);
                                converted->low_rank.gate.bias = at::Tensor();
                                return converted;
                              }).status();
  expect(status, "gate_proj.up.bias is not given");
  request_.low_rank->ranks[1].down = 32;
  expect(WriteLowRank().status(), "\"down\" is 32, expected at most 31");
  ExpectNothingLeft();
}

TEST_F(ArtifactWriterTest, CastsEveryTensor) {
  request_.dtype = DType::kBF16;
  ASSERT_TRUE(Write().ok());
  const auto converted = Checkpoint::Open(request_.output);
  ASSERT_TRUE(converted.ok()) << converted.status();
  for (const std::string& name : converted->tensor_names()) {
    EXPECT_EQ(converted->Tensor(name)->dtype(), DType::kBF16) << name;
  }
  constexpr char kNorm[] = "model.norm.weight";
  const at::Tensor wide =
      at::from_blob(BytesIn(*source_, kNorm).data(), {kHidden}, at::kFloat).clone();
  EXPECT_EQ(BytesIn(*converted, kNorm), BytesOf(wide.to(at::kBFloat16)));
}

TEST_F(ArtifactWriterTest, SameInputsGiveTheSameBytes) {
  const auto first = Write();
  ASSERT_TRUE(first.ok()) << first.status();
  request_.output = root_ / "again";
  const auto second = Write();
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(first->manifest_sha256, second->manifest_sha256);
}

TEST_F(ArtifactWriterTest, ReplacesAnEmptyFolderAndAStalePartialOne) {
  fs::create_directories(request_.output);
  fs::create_directories(root_ / "out.partial-job-7" / "old");  // of an earlier version
  fs::create_directories(root_ / "out.partial-job-7.0123" / "old");
  fs::create_directories(root_ / "out.partial-job-77.0123" / "old");  // another job's
  request_.output += "/";
  ASSERT_TRUE(Write().ok());
  EXPECT_EQ(ListDirectory(root_).value(),
            (std::vector<std::string>{"out", "out.partial-job-77.0123", "source"}));
  EXPECT_TRUE(VerifyArtifact(root_ / "out").ok());
}

TEST_F(ArtifactWriterTest, RefusesAnOutputThatHoldsSomething) {
  fs::create_directories(request_.output);
  ASSERT_TRUE(WriteFileAtomic(request_.output / "precious", "x").ok());
  const absl::Status status = Write().status();
  EXPECT_TRUE(absl::IsAlreadyExists(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("precious"));
  EXPECT_EQ(ListDirectory(root_).value(), (std::vector<std::string>{"out", "source"}));
  request_.output = root_ / "out" / "precious";
  EXPECT_TRUE(absl::IsAlreadyExists(Write().status()));
  EXPECT_EQ(ReadFile(root_ / "out" / "precious").value(), "x");
}

TEST_F(ArtifactWriterTest, OutputFilledMeanwhileStaysAsItIs) {
  const absl::Status status = Write([this](int layer) {
                                fs::create_directories(request_.output);
                                EXPECT_TRUE(WriteFileAtomic(request_.output / "late", "x").ok());
                                return Layer(layer);
                              }).status();
  EXPECT_TRUE(absl::IsAlreadyExists(status)) << status;
  EXPECT_EQ(ListDirectory(request_.output).value(), std::vector<std::string>{"late"});
}

TEST_F(ArtifactWriterTest, NothingIsVisibleBeforeTheEndOrAfterAFailure) {
  const absl::Status status =
      Write([this](int layer) -> absl::StatusOr<ConvertedLayer> {
        EXPECT_FALSE(fs::exists(request_.output));
        EXPECT_THAT(ListDirectory(root_).value(), Contains(StartsWith("out.partial-job-7.")));
        if (layer == 1) return absl::CancelledError("stop");
        return Layer(layer);
      }).status();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  ExpectNothingLeft();
}

TEST_F(ArtifactWriterTest, ShapesAndValuesAreChecked) {
  const auto with = [this](const std::function<void(ConvertedLayer&)>& change) {
    return Write([&, this](int layer) {
             auto converted = Layer(layer);
             change(*converted);
             return converted;
           })
        .status();
  };
  absl::Status status = with([](ConvertedLayer& layer) { layer.k_up = Constant(2, 2, 1); });
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("k_up_proj.weight is given as"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("[2, 2], expected"));
  status = with([](ConvertedLayer& layer) { layer.k_down = at::Tensor(); });
  EXPECT_THAT(std::string(status.message()), HasSubstr("k_down_proj.weight is not given"));
  const double infinity = std::numeric_limits<double>::infinity();
  status = with([&](ConvertedLayer& layer) { layer.k_down = Constant(5, kHidden, infinity); });
  EXPECT_THAT(std::string(status.message()), HasSubstr("k_down_proj.weight has a value"));
  ExpectNothingLeft();
}

TEST_F(ArtifactWriterTest, RanksAndNamesAreChecked) {
  request_.ranks[0].k = kWidth + 1;
  EXPECT_TRUE(absl::IsInvalidArgument(Write().status()));
  request_.ranks = {{.k = 1, .v = 1}};
  EXPECT_TRUE(absl::IsInvalidArgument(Write().status()));
  request_.ranks = {{.k = 5, .v = kWidth}, {.k = 3, .v = 7}};
  request_.job_id = "../job";
  EXPECT_TRUE(absl::IsInvalidArgument(Write().status()));
  ExpectNothingLeft();
}

TEST_F(ArtifactWriterTest, AnArtifactIsNoSource) {
  ASSERT_TRUE(Write().ok());
  source_ = std::make_unique<Checkpoint>(Checkpoint::Open(request_.output).value());
  request_.output = root_ / "twice";
  const absl::Status status = Write().status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("artifact already"));
}

TEST_F(ArtifactWriterTest, LinksOutOfTheSourceAreNotFollowed) {
  ASSERT_TRUE(WriteFileAtomic(root_ / "secret", "secret").ok());
  fs::create_symlink(root_ / "secret", root_ / "source" / "vocab.json");
  EXPECT_TRUE(absl::IsPermissionDenied(Write().status()));
  EXPECT_FALSE(fs::exists(request_.output));
}

TEST_F(ArtifactWriterTest, DiskFullLeavesNothing) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit limit = before;
  limit.rlim_cur = 40'000;  // more than any file but the weights
  setrlimit(RLIMIT_FSIZE, &limit);
  const absl::Status status = Write().status();
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
  ExpectNothingLeft();
}

}  // namespace
}  // namespace latentforge::exporter

#include "checkpoint/checkpoint.h"

#include <fstream>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/channel_order.h"
#include "checkpoint/tensor_catalogue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::checkpoint {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CheckpointTest : public ::testing::Test {
 protected:
  ~CheckpointTest() override { RemoveTree(scratch_).IgnoreError(); }  // only scratch

  void Write(const TinyOptions& options = {}) {
    RemoveTree(dir_).IgnoreError();  // may be absent
    const absl::Status status = WriteTinyCheckpoint(dir_, options);
    ASSERT_TRUE(status.ok()) << status;
  }
  void Put(absl::string_view name, absl::string_view bytes) {
    std::ofstream(dir_ / std::string(name), std::ios::binary) << bytes;
  }
  std::string Get(absl::string_view name) { return ReadFile(dir_ / std::string(name)).value(); }

  // Rewrites model.safetensors with its tensors changed.
  void Change(const std::function<void(std::vector<RawTensor>&)>& change) {
    std::vector<RawTensor> tensors;
    {
      const SafetensorsFile file = SafetensorsFile::Open(dir_ / "model.safetensors").value();
      for (const TensorEntry& entry : file.header().tensors) {
        const TensorView view = file.Find(entry.name).value();
        tensors.push_back(
            {entry.name,
             entry.dtype,
             {entry.shape.begin(), entry.shape.end()},
             std::string(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size())});
      }
    }
    change(tensors);
    Put("model.safetensors", SafetensorsBytes(tensors));
  }

  // Opening fails with `code`; returns the message.
  std::string OpenError(absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
    const absl::Status status = Checkpoint::Open(dir_).status();
    EXPECT_EQ(status.code(), code) << status;
    return std::string(status.message());
  }

  const fs::path scratch_ = NewTestDirectory("checkpoint");
  const fs::path dir_ = scratch_ / "model";
};

constexpr Family kFamilies[] = {Family::kLlama, Family::kMistral, Family::kQwen2, Family::kQwen3};

TEST_F(CheckpointTest, OpensEveryFamilyTypeAndShardCount) {
  for (const Family family : kFamilies) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const int shards : {1, 3}) {
        Write({.family = family, .dtype = dtype, .shards = shards});
        const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(dir_);
        ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
        EXPECT_EQ(checkpoint->total_bytes(), NumParameters(checkpoint->config()) * BytesOf(dtype));
        EXPECT_EQ(checkpoint->files().size(), static_cast<size_t>(shards) + 1);
        EXPECT_THAT(checkpoint->dtype_names(), ElementsAre(std::string(NameOf(dtype))));
        for (const TensorSpec& spec : ExpectedTensors(checkpoint->config())) {
          const absl::StatusOr<TensorView> view = checkpoint->Tensor(spec.name);
          ASSERT_TRUE(view.ok()) << view.status();
          EXPECT_EQ(view->entry->shape, spec.shape);
          checkpoint->DropPages(*view);
        }
        EXPECT_TRUE(checkpoint->Digest().ok());
      }
    }
  }
}

TEST_F(CheckpointTest, OpensConvertedCheckpoints) {
  for (const Family family : kFamilies) {
    Write({.family = family, .ranks = {{4, 16, 0}, {16, 1, 0}}});
    const absl::StatusOr<Checkpoint> separate = Checkpoint::Open(dir_);
    ASSERT_TRUE(separate.ok()) << separate.status();
    EXPECT_EQ(separate->Tensor(LayerTensor(0, "self_attn.k_down_proj.weight"))->entry->shape,
              (Shape{4, 32}));
    EXPECT_TRUE(separate->Tensor(LayerTensor(0, "self_attn.v_proj.weight")).ok());
    Write({.family = family, .ranks = {{0, 0, 8}, {0, 0, 32}}, .joint = true});
    const absl::StatusOr<Checkpoint> joint = Checkpoint::Open(dir_);
    ASSERT_TRUE(joint.ok()) << joint.status();
    EXPECT_EQ(joint->Tensor(LayerTensor(0, "self_attn.v_up_proj.weight"))->entry->shape,
              (Shape{16, 8}));
    EXPECT_TRUE(joint->Tensor(LayerTensor(1, "self_attn.k_proj.weight")).ok());
  }
}

TEST_F(CheckpointTest, OpensLowRankCheckpoints) {
  for (const Family family : kFamilies) {
    Write({.family = family,
           .dtype = DType::kBF16,
           .low_rank = LowRankConfig{.bias = true, .ranks = {{.q = 4, .k = 3, .gate = 5}, {}}}});
    const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(dir_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_TRUE(opened->config().converted());
    EXPECT_EQ(opened->total_bytes(), StoredBytes(opened->config(), DType::kBF16));
    EXPECT_THAT(opened->dtype_names(), ElementsAre("BF16"));
    const absl::StatusOr<TensorView> order = opened->Tensor(LayerTensor(0, "mlp.gate_proj.order"));
    ASSERT_TRUE(order.ok()) << order.status();
    EXPECT_EQ(order->dtype(), DType::kI32);
    EXPECT_TRUE(ReadOrder(*order).ok());
    EXPECT_TRUE(opened->Digest().ok());
  }
}

// The bits of 0x7f800000 are infinity as F32, but an entry like any other as I32.
TEST_F(CheckpointTest, TheDigestTakesNoOrderForFloats) {
  Write({.low_rank = LowRankConfig{.ranks = {{.q = 4}, {}}}});
  Change([](std::vector<RawTensor>& tensors) {
    for (RawTensor& tensor : tensors) {
      if (tensor.dtype == DType::kI32) tensor.bytes.replace(0, 4, std::string("\0\0\x80\x7f", 4));
    }
  });
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(dir_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_TRUE(opened->Digest().ok());
  const TensorView order = opened->Tensor(LayerTensor(0, "self_attn.q_proj.order")).value();
  const absl::Status status = ReadOrder(order).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("self_attn.q_proj.order"), HasSubstr("2139095040 at element 0"),
                    HasSubstr("each of 0 to 31 once")));
}

TEST_F(CheckpointTest, RefusesOrdersOfOtherTypesAndWeightsOfThatType) {
  const auto with_type = [this](absl::string_view suffix, DType dtype, std::string bytes) {
    Write({.low_rank = LowRankConfig{.ranks = {{.q = 4}, {}}}});
    Change([&](std::vector<RawTensor>& tensors) {
      for (RawTensor& tensor : tensors) {
        if (tensor.name != LayerTensor(0, suffix)) continue;
        tensor.dtype = dtype;
        if (!bytes.empty()) tensor.bytes = bytes;
      }
    });
    return OpenError();
  };
  EXPECT_THAT(with_type("self_attn.q_proj.order", DType::kF32, ""),
              AllOf(HasSubstr("q_proj.order"), HasSubstr("has type F32, expected I32")));
  EXPECT_THAT(with_type("self_attn.q_proj.order", DType::kI64, std::string(32 * 8, '\0')),
              HasSubstr("has type I64, expected I32"));
  EXPECT_THAT(with_type("self_attn.q_proj.down.weight", DType::kI32, ""),
              HasSubstr("has type I32, expected F32, F16 or BF16"));
}

TEST_F(CheckpointTest, RefusesAbsentFoldersFilesAndShards) {
  EXPECT_THAT(OpenError(absl::StatusCode::kNotFound), HasSubstr(dir_.string()));
  Write();
  fs::remove(dir_ / "model.safetensors");
  EXPECT_THAT(OpenError(absl::StatusCode::kNotFound), HasSubstr("neither model.safetensors nor"));
  fs::remove(dir_ / "config.json");
  EXPECT_THAT(OpenError(absl::StatusCode::kNotFound), HasSubstr("config.json"));
  Write({.shards = 3});
  fs::remove(dir_ / "model-00002-of-00003.safetensors");
  EXPECT_THAT(OpenError(absl::StatusCode::kNotFound),
              HasSubstr("model-00002-of-00003.safetensors"));
}

TEST_F(CheckpointTest, RefusesMissingMisshapenMistypedAndUnknownTensors) {
  const std::string name = LayerTensor(1, "self_attn.k_proj.weight");
  const auto find = [&](std::vector<RawTensor>& tensors) -> RawTensor& {
    return *std::find_if(tensors.begin(), tensors.end(),
                         [&](const RawTensor& tensor) { return tensor.name == name; });
  };
  Write();
  Change([&](auto& tensors) { find(tensors).shape = {32, 16}; });
  EXPECT_THAT(OpenError(), HasSubstr(name + "\" has shape [32, 16], expected [16, 32]"));
  Write();
  Change([&](auto& tensors) { find(tensors).shape = {512}; });
  EXPECT_THAT(OpenError(), HasSubstr("has shape [512]"));
  Write();
  Change([&](auto& tensors) { find(tensors).dtype = DType::kI32; });
  EXPECT_THAT(OpenError(), HasSubstr(name + "\" has type I32, expected F32, F16 or BF16"));
  Write();
  Change([&](auto& tensors) { find(tensors).name = "model.layers.1.self_attn.k_prok.weight"; });
  EXPECT_THAT(OpenError(), HasSubstr(name + "\" of shape [16, 32] is missing"));
  Write();
  Change([&](auto& tensors) {
    tensors.push_back({LayerTensor(0, "self_attn.q_proj.bias"), DType::kF32, {1}, "1234"});
  });
  EXPECT_THAT(OpenError(), HasSubstr("1 tensor that a llama model with this config.json does not "
                                     "have: model.layers.0.self_attn.q_proj.bias"));
  Write();
  Change([&](auto& tensors) {
    tensors.push_back(
        {LayerTensor(0, "self_attn.rotary_emb.inv_freq"), DType::kF32, {1}, "\xff\xff\xff\xff"});
  });
  const absl::StatusOr<Checkpoint> with_leftover = Checkpoint::Open(dir_);
  ASSERT_TRUE(with_leftover.ok()) << with_leftover.status();
  EXPECT_TRUE(with_leftover->Digest().ok());
  EXPECT_FALSE(with_leftover->Tensor(LayerTensor(0, "self_attn.rotary_emb.inv_freq")).ok());
}

TEST_F(CheckpointTest, AcceptsATiedHeadOnlyWhenItIsTheEmbedding) {
  Write({.tie_word_embeddings = true});
  EXPECT_TRUE(Checkpoint::Open(dir_).ok());
  Change([](auto& tensors) {
    RawTensor head = tensors.front();
    ASSERT_EQ(head.name, kEmbedTokens);
    head.name = kLmHead;
    tensors.push_back(head);
  });
  EXPECT_TRUE(Checkpoint::Open(dir_).ok());
  Change([](auto& tensors) { tensors.back().bytes[0] ^= 1; });
  EXPECT_THAT(OpenError(), HasSubstr("differs from \"model.embed_tokens.weight\""));
}

TEST_F(CheckpointTest, RefusesAnIndexThatDisagreesWithTheShards) {
  Write({.shards = 2});
  const Json index = Json::parse(Get(kIndexFile));
  const auto with = [&](const std::function<void(Json&)>& change) {
    Json changed = index;
    change(changed["weight_map"]);
    Put(kIndexFile, changed.dump());
    return OpenError();
  };
  EXPECT_THAT(with([](Json& map) { map[kLmHead] = map[kEmbedTokens]; }),
              HasSubstr("puts tensor \"lm_head.weight\" into model-00001-of-00002.safetensors"));
  EXPECT_THAT(with([](Json& map) { map["ghost"] = map[kLmHead]; }), HasSubstr("\"ghost\""));
  EXPECT_THAT(with([](Json& map) { map.erase(kLmHead); }), HasSubstr("lm_head.weight"));
  EXPECT_THAT(with([](Json& map) { map = Json::object(); }), HasSubstr("names 0 files"));
  EXPECT_THAT(with([](Json& map) { map = 7; }), HasSubstr("weight_map"));
  EXPECT_THAT(with([](Json& map) { map[kLmHead] = 7; }), HasSubstr("expected a string"));
  for (const char* file : {"../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "",
                           "a\\b.safetensors", "a\nb.safetensors"}) {
    EXPECT_THAT(with([&](Json& map) { map[kLmHead] = file; }), HasSubstr("plain file name"));
  }
  EXPECT_THAT(with([](Json& map) { map[kLmHead] = "config.json"; }), HasSubstr(".safetensors"));
  fs::copy_file(dir_ / "model-00001-of-00002.safetensors", dir_ / "copy.safetensors");
  EXPECT_THAT(with([](Json& map) { map[kEmbedTokens] = "copy.safetensors"; }),
              HasSubstr("is in copy.safetensors and in model-00001-of-00002.safetensors"));
}

TEST_F(CheckpointTest, FollowsLinksWithinTheFolderAndTheHubCacheOnly) {
  Write();
  fs::rename(dir_ / "model.safetensors", dir_ / "weights.bin");
  fs::create_symlink("weights.bin", dir_ / "model.safetensors");
  EXPECT_TRUE(Checkpoint::Open(dir_).ok());
  fs::rename(dir_ / "weights.bin", scratch_ / "outside.safetensors");
  fs::remove(dir_ / "model.safetensors");
  fs::create_symlink("../outside.safetensors", dir_ / "model.safetensors");
  EXPECT_THAT(OpenError(absl::StatusCode::kPermissionDenied),
              AllOf(HasSubstr("out of its folder"), HasSubstr("cp -rL")));

  const fs::path cache = scratch_ / "models--tiny";
  fs::create_directories(cache / "snapshots" / "abc");
  fs::create_directories(cache / "blobs");
  fs::rename(scratch_ / "outside.safetensors", cache / "blobs" / "1");
  fs::rename(dir_ / "config.json", cache / "blobs" / "2");
  fs::create_symlink("../../blobs/1", cache / "snapshots" / "abc" / "model.safetensors");
  fs::create_symlink("../../blobs/2", cache / "snapshots" / "abc" / "config.json");
  EXPECT_TRUE(Checkpoint::Open(cache / "snapshots" / "abc").ok());
}

TEST_F(CheckpointTest, DigestDependsOnEveryByteAndReportsProgress) {
  Write({.shards = 2});
  std::vector<std::pair<int64_t, int64_t>> reports;
  const auto digest = [&] {
    return Checkpoint::Open(dir_)
        ->Digest({.progress =
                      [&](int64_t done, int64_t total) {
                        reports.emplace_back(done, total);
                        return absl::OkStatus();
                      }})
        .value();
  };
  const std::string first = digest();
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(reports.back().first, reports.back().second);
  EXPECT_EQ(digest(), first);
  Put("config.json", Get("config.json") + "\n");
  const std::string second = digest();
  EXPECT_NE(second, first);
  std::string shard = Get("model-00002-of-00002.safetensors");
  shard[shard.size() - 4] ^= 1;
  Put("model-00002-of-00002.safetensors", shard);
  EXPECT_NE(digest(), second);

  const absl::StatusOr<std::string> stopped = Checkpoint::Open(dir_)->Digest(
      {.progress = [](int64_t, int64_t) { return absl::CancelledError("stop"); }});
  EXPECT_TRUE(absl::IsCancelled(stopped.status()));
}

TEST_F(CheckpointTest, DigestNamesTheFirstWeightThatIsNotFinite) {
  const std::vector<std::pair<DType, std::string>> cases = {
      {DType::kF32, std::string("\x00\x00\xc0\x7f", 4)},
      {DType::kF32, std::string("\x00\x00\x80\xff", 4)},
      {DType::kF16, std::string("\x00\x7c", 2)},
      {DType::kF16, std::string("\x01\xfe", 2)},
      {DType::kBF16, std::string("\x80\x7f", 2)},
      {DType::kBF16, std::string("\xc1\xff", 2)}};
  for (const auto& [dtype, bits] : cases) {
    for (const size_t element : {size_t{0}, size_t{1500}, size_t{2047}}) {
      Write({.dtype = dtype});
      Change([&, &dtype = dtype, &bits = bits](auto& tensors) {
        tensors.front().bytes.replace(element * static_cast<size_t>(BytesOf(dtype)), bits.size(),
                                      bits);
      });
      const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(dir_);
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      const absl::Status status = checkpoint->Digest().status();
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(
          std::string(status.message()),
          HasSubstr(absl::StrCat("\"model.embed_tokens.weight\" has a NaN or infinity at element ",
                                 element, " of 2048")));
      EXPECT_TRUE(checkpoint->Digest({.check_finite = false}).ok());
    }
  }
}

TEST_F(CheckpointTest, NoticesShardsThatShrinkAfterOpen) {
  Write();
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(dir_);
  ASSERT_TRUE(checkpoint.ok());
  fs::resize_file(dir_ / "model.safetensors", fs::file_size(dir_ / "model.safetensors") / 2);
  EXPECT_EQ(checkpoint->Tensor(kLmHead).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(checkpoint->Digest().status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace latentforge::checkpoint

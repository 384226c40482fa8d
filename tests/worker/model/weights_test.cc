#include "worker/model/weights.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "base/file.h"
#include "checkpoint/channel_order.h"
#include "tests/checkpoint/fixture.h"

namespace latentforge::model {
namespace {

using checkpoint::Checkpoint;
using checkpoint::TinyOptions;
using testing::HasSubstr;

absl::StatusOr<Checkpoint> OpenTiny(const TinyOptions& options) {
  const std::filesystem::path dir = checkpoint::NewTestDirectory("weights") / "model";
  const absl::Status status = checkpoint::WriteTinyCheckpoint(dir, options);
  if (!status.ok()) return status;
  return Checkpoint::Open(dir);
}

// What the file holds, read element by element.
at::Tensor Raw(const Checkpoint& source, const std::string& name) {
  const checkpoint::TensorView view = *source.Tensor(name);
  const bool wide = view.dtype() == checkpoint::DType::kF32;
  const at::Tensor tensor = at::empty(
      at::IntArrayRef(view.shape().data(), view.shape().size()),
      wide ? at::kFloat : (view.dtype() == checkpoint::DType::kF16 ? at::kHalf : at::kBFloat16));
  std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor;
}

class StorageTest : public testing::TestWithParam<checkpoint::DType> {};

TEST_P(StorageTest, LayerHoldsTheFilesValues) {
  const auto source = OpenTiny({.dtype = GetParam(), .shards = 2});
  ASSERT_TRUE(source.ok()) << source.status();
  const WeightLoader loader(*source, at::kCPU, at::kFloat);
  const auto layer = loader.Layer(1);
  ASSERT_TRUE(layer.ok()) << layer.status();
  const std::string prefix = "model.layers.1.";
  const auto raw = [&](const std::string& name) {
    return Raw(*source, prefix + name + ".weight").to(at::kFloat);
  };
  EXPECT_TRUE(layer->q.weight.equal(raw("self_attn.q_proj")));
  EXPECT_TRUE(layer->k.weight.equal(raw("self_attn.k_proj")));
  EXPECT_TRUE(layer->o.weight.equal(raw("self_attn.o_proj")));
  EXPECT_TRUE(layer->gate_up.weight.equal(at::cat({raw("mlp.gate_proj"), raw("mlp.up_proj")})));
  EXPECT_TRUE(layer->mlp_down.weight.equal(raw("mlp.down_proj")));
  EXPECT_TRUE(layer->input_norm.weight.equal(raw("input_layernorm")));
  EXPECT_FALSE(layer->k.bias.defined());
  EXPECT_FALSE(layer->q_norm.defined());
}

INSTANTIATE_TEST_SUITE_P(Types, StorageTest,
                         testing::Values(checkpoint::DType::kF32, checkpoint::DType::kF16,
                                         checkpoint::DType::kBF16));

TEST(WeightLoader, EmbedGathersRowsInOrder) {
  const auto source = OpenTiny({});
  ASSERT_TRUE(source.ok()) << source.status();
  const WeightLoader loader(*source, at::kCPU, at::kBFloat16);
  const std::vector<int32_t> ids = {63, 0, 5, 5};
  const auto rows = loader.Embed(ids, std::ssize(ids));
  ASSERT_TRUE(rows.ok()) << rows.status();
  const at::Tensor table = Raw(*source, "model.embed_tokens.weight").to(at::kBFloat16);
  EXPECT_TRUE(rows->equal(table.index_select(0, at::tensor({63, 0, 5, 5}))));
}

TEST(WeightLoader, EmbedNamesABadToken) {
  const auto source = OpenTiny({});
  ASSERT_TRUE(source.ok()) << source.status();
  const WeightLoader loader(*source, at::kCPU, at::kFloat);
  for (const int32_t bad : {-1, 64}) {
    const absl::Status status = loader.Embed({1, bad}, 2).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(bad)));
  }
}

TEST(WeightLoader, HeadIsTheEmbeddingWhenTied) {
  for (const bool tied : {false, true}) {
    const auto source = OpenTiny({.tie_word_embeddings = tied});
    ASSERT_TRUE(source.ok()) << source.status();
    const WeightLoader loader(*source, at::kCPU, at::kFloat);
    const auto rows = loader.LmHeadRows(10, 20);
    ASSERT_TRUE(rows.ok()) << rows.status();
    const std::string name = tied ? "model.embed_tokens.weight" : "lm_head.weight";
    EXPECT_TRUE(rows->equal(Raw(*source, name).narrow(0, 10, 10)));
    EXPECT_EQ(loader.LmHeadRows(60, 65).status().code(), absl::StatusCode::kOutOfRange);
  }
}

TEST(WeightLoader, NoSuchLayer) {
  const auto source = OpenTiny({});
  ASSERT_TRUE(source.ok()) << source.status();
  const WeightLoader loader(*source, at::kCPU, at::kFloat);
  EXPECT_EQ(loader.Layer(2).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(loader.Layer(-1).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(WeightLoader, ArtifactsHaveLowRankProjections) {
  const auto separate = OpenTiny({.ranks = {{.k = 3, .v = 16}, {.k = 16, .v = 5}}});
  ASSERT_TRUE(separate.ok()) << separate.status();
  const WeightLoader loader(*separate, at::kCPU, at::kFloat);
  const auto first = loader.Layer(0), second = loader.Layer(1);
  ASSERT_TRUE(first.ok() && second.ok()) << first.status() << second.status();
  EXPECT_EQ(first->k.down.sizes(), at::IntArrayRef({3, 32}));
  EXPECT_EQ(first->k.up.sizes(), at::IntArrayRef({16, 3}));
  EXPECT_FALSE(first->v.low_rank());
  EXPECT_FALSE(second->k.low_rank());
  EXPECT_EQ(second->v.up.sizes(), at::IntArrayRef({16, 5}));

  const auto joint = OpenTiny({.ranks = {{.joint = 9}, {.joint = 32}}, .joint = true});
  ASSERT_TRUE(joint.ok()) << joint.status();
  const WeightLoader joint_loader(*joint, at::kCPU, at::kFloat);
  const auto shared = joint_loader.Layer(0), dense = joint_loader.Layer(1);
  ASSERT_TRUE(shared.ok() && dense.ok()) << shared.status() << dense.status();
  EXPECT_TRUE(shared->k.down.is_same(shared->v.down));
  EXPECT_EQ(shared->k.down.sizes(), at::IntArrayRef({9, 32}));
  EXPECT_FALSE(dense->k.low_rank());
}

checkpoint::LowRankConfig MixedRanks(bool block_identity) {
  return {.block_identity = block_identity,
          .bias = true,
          .ranks = {{.q = 6, .v = 3, .gate = 7, .down = 19}, {.up = 5}}};
}

// z = x[order[:r]] + rest x[order[r:]], element by element.
TEST(WeightLoader, ABlockIdentityIsAGatherAndAnAddition) {
  const auto source = OpenTiny({.low_rank = MixedRanks(true)});
  ASSERT_TRUE(source.ok()) << source.status();
  const auto layer = WeightLoader(*source, at::kCPU, at::kDouble).Layer(0);
  ASSERT_TRUE(layer.ok()) << layer.status();
  const auto expect_map = [&](const Projection& p, const std::string& module, int64_t rank) {
    const std::string prefix = "model.layers.0." + module;
    const std::vector<int64_t> order =
        checkpoint::ReadOrder(*source->Tensor(prefix + ".order")).value();
    const at::Tensor rest = Raw(*source, prefix + ".down.weight").to(at::kDouble);
    const auto in = static_cast<int64_t>(order.size());
    const at::Tensor x = at::arange(in, at::kDouble).mul(1.7).sin();
    const at::Tensor found = p.down.mv(x);
    ASSERT_EQ(p.down.sizes(), at::IntArrayRef({rank, in}));
    for (int64_t i = 0; i < rank; ++i) {
      double expected = x[order[size_t(i)]].item<double>();
      for (int64_t j = 0; j < in - rank; ++j) {
        expected += rest[i][j].item<double>() * x[order[size_t(rank + j)]].item<double>();
      }
      EXPECT_NEAR(found[i].item<double>(), expected, 1e-12) << module << " " << i;
    }
    EXPECT_TRUE(p.up.equal(Raw(*source, prefix + ".up.weight").to(at::kDouble)));
    EXPECT_TRUE(p.bias.equal(Raw(*source, prefix + ".up.bias").to(at::kDouble)));
  };
  expect_map(layer->q, "self_attn.q_proj", 6);
  expect_map(layer->v, "self_attn.v_proj", 3);
  expect_map(layer->gate, "mlp.gate_proj", 7);
  expect_map(layer->mlp_down, "mlp.down_proj", 19);
}

TEST(WeightLoader, LowRankAndDenseMapsStandSideBySide) {
  for (const bool block_identity : {true, false}) {
    const auto source = OpenTiny({.low_rank = MixedRanks(block_identity)});
    ASSERT_TRUE(source.ok()) << source.status();
    const WeightLoader loader(*source, at::kCPU, at::kFloat);
    const LayerWeights first = loader.Layer(0).value(), second = loader.Layer(1).value();
    EXPECT_TRUE(first.q.low_rank() && first.v.low_rank() && first.gate.low_rank());
    EXPECT_FALSE(first.k.low_rank() || first.o.low_rank() || first.up.low_rank());
    EXPECT_FALSE(first.gate_up.defined() || second.gate_up.defined());
    EXPECT_TRUE(second.up.low_rank());
    EXPECT_EQ(first.q.down.sizes(), at::IntArrayRef({6, 32}));
    EXPECT_TRUE(first.up.weight.equal(Raw(*source, "model.layers.0.mlp.up_proj.weight")));
    EXPECT_FALSE(first.up.bias.defined());
    if (block_identity) continue;
    EXPECT_TRUE(first.q.down.equal(Raw(*source, "model.layers.0.self_attn.q_proj.down.weight")));
  }
}

TEST(WeightLoader, RefusesAnOrderThatIsNoPermutation) {
  const std::filesystem::path dir = checkpoint::NewTestDirectory("order") / "model";
  ASSERT_TRUE(checkpoint::WriteTinyCheckpoint(dir, {.low_rank = MixedRanks(true)}).ok());
  const std::string name = "model.layers.0.mlp.down_proj.order";
  std::string bytes = ReadFile(dir / "model.safetensors").value();
  {
    const auto file = checkpoint::SafetensorsFile::Open(dir / "model.safetensors");
    ASSERT_TRUE(file.ok()) << file.status();
    const size_t begin = file->header().data_begin + file->FindEntry(name)->begin;
    bytes.replace(begin + 4, 4, bytes.substr(begin, 4));  // entry 1 repeats entry 0
  }
  ASSERT_TRUE(WriteFileAtomic(dir / "model.safetensors", bytes).ok());
  const auto source = Checkpoint::Open(dir);
  ASSERT_TRUE(source.ok()) << source.status();
  const absl::Status status = WeightLoader(*source, at::kCPU, at::kFloat).Layer(0).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(HasSubstr(dir.string()), HasSubstr(name), HasSubstr("at element 1"),
                             HasSubstr("each of 0 to 47 once")));
}

}  // namespace
}  // namespace latentforge::model

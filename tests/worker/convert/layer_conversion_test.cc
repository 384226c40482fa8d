#include "worker/convert/layer_conversion.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/checkpoint/fixture.h"

namespace latentforge::convert {
namespace {

using checkpoint::DType;

class LayerConversionTest : public testing::Test {
 protected:
  LayerConversionTest() : root_(checkpoint::NewTestDirectory("layer_conversion")) {
    EXPECT_TRUE(
        checkpoint::WriteTinyCheckpoint(root_ / "model", {.family = checkpoint::Family::kQwen2})
            .ok());
  }

  Inputs InputsFor(DType output) const {
    return {.checkpoint = checkpoint::Checkpoint::Open(root_ / "model").value(),
            .source_dtype = DType::kF32,
            .output_dtype = output};
  }

  static model::LayerWeights Layer(const Inputs& inputs) {
    return model::WeightLoader(inputs.checkpoint, at::kCPU, at::kFloat).Layer(1).value();
  }

  static at::Tensor Rounded(const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kFloat); }

  std::filesystem::path root_;
};

TEST_F(LayerConversionTest, TakesFactorsAsStoredAndRoundsTheRestWithTheArtifact) {
  const exporter::ConvertedLayer factors{.kv_down = at::rand({5, 32}).to(at::kBFloat16),
                                         .k_up = at::rand({16, 5}).to(at::kBFloat16),
                                         .v_up = at::rand({16, 5}).to(at::kBFloat16)};
  for (const DType output : {DType::kF32, DType::kBF16}) {
    const Inputs inputs = InputsFor(output);
    const model::LayerWeights before = Layer(inputs);
    model::LayerWeights weights = Layer(inputs);
    ASSERT_TRUE(ConvertLayer(inputs, factors, weights).ok());
    EXPECT_TRUE(at::equal(weights.k.down, factors.kv_down.to(at::kFloat)));
    EXPECT_TRUE(weights.k.down.is_same(weights.v.down)) << "a joint latent is one tensor";
    EXPECT_TRUE(at::equal(weights.v.up, factors.v_up.to(at::kFloat)));
    EXPECT_FALSE(weights.k.weight.defined());
    const auto expect = [&](const at::Tensor& found, const at::Tensor& source) {
      EXPECT_FALSE(at::equal(source, Rounded(source))) << "nothing to round";
      EXPECT_TRUE(at::equal(found, output == DType::kF32 ? source : Rounded(source)));
    };
    expect(weights.o.weight, before.o.weight);
    expect(weights.gate_up.weight, before.gate_up.weight);
    expect(weights.k.bias, before.k.bias);
    expect(weights.input_norm.weight, before.input_norm.weight);
  }
}

TEST_F(LayerConversionTest, ADenseLayerStaysTheOriginals) {
  const Inputs inputs = InputsFor(DType::kF32);
  const model::LayerWeights before = Layer(inputs);
  model::LayerWeights weights = Layer(inputs);
  ASSERT_TRUE(ConvertLayer(inputs, {}, weights).ok());
  EXPECT_TRUE(at::equal(weights.k.weight, before.k.weight));
  EXPECT_TRUE(at::equal(weights.v.weight, before.v.weight));
}

}  // namespace
}  // namespace latentforge::convert

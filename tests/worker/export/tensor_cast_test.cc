#include "worker/export/tensor_cast.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"

namespace latentforge::exporter {
namespace {

using checkpoint::DType;
using testing::HasSubstr;

TEST(TensorCastTest, KeepsValuesThatFit) {
  const at::Tensor source = at::tensor({1.0, -0.5, 3.0}, at::kDouble).view({1, 3});
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const auto cast = CastTensor(source.t(), dtype, "w");
    ASSERT_TRUE(cast.ok()) << cast.status();
    EXPECT_TRUE(cast->is_contiguous());
    EXPECT_EQ(BytesOf(*cast).size(), 3u * checkpoint::BytesOf(dtype));
    EXPECT_TRUE(at::equal(cast->to(at::kDouble), source.t()));
  }
}

TEST(TensorCastTest, RefusesWhatIsNotFinite) {
  const double infinity = std::numeric_limits<double>::infinity();
  const auto overflow = CastTensor(at::tensor({1.0, 70000.0}), DType::kF16, "layer.w");
  EXPECT_TRUE(absl::IsInvalidArgument(overflow.status()));
  EXPECT_THAT(std::string(overflow.status().message()), HasSubstr("layer.w"));
  EXPECT_FALSE(CastTensor(at::tensor({infinity}), DType::kF32, "w").ok());
  EXPECT_FALSE(CastTensor(at::tensor({std::nan("")}), DType::kBF16, "w").ok());
  EXPECT_FALSE(CastTensor(at::tensor({1.0}), DType::kI32, "w").ok());
}

TEST(TensorCastTest, ReadsUnalignedBytes) {
  const at::Tensor values = at::tensor({1.5f, -2.0f});
  std::string bytes(1, 'x');
  absl::StrAppend(&bytes, BytesOf(values));
  const auto read = TensorFromBytes(absl::string_view(bytes).substr(1), DType::kF32, "w");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(at::equal(*read, values));
  EXPECT_TRUE(absl::IsInvalidArgument(TensorFromBytes("abc", DType::kF32, "w").status()));
  EXPECT_EQ(TensorFromBytes("", DType::kF32, "w").value().numel(), 0);
}

}  // namespace
}  // namespace latentforge::exporter

#include "checkpoint/channel_order.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::checkpoint {
namespace {

TEST(ChannelOrderTest, TakesPermutations) {
  EXPECT_TRUE(CheckOrder({0}, "t").ok());
  EXPECT_TRUE(CheckOrder({2, 0, 3, 1}, "t").ok());
}

TEST(ChannelOrderTest, NamesTensorEntryAndPlace) {
  struct Case {
    std::vector<int64_t> order;
    std::string problem;
  };
  for (const Case& test :
       {Case{{0, 1, 3}, "has 3 at element 2"}, Case{{0, -1, 2}, "-1 at element 1"},
        Case{{2, 0, 2}, "has 2 at element 2"}}) {
    const absl::Status status = CheckOrder(test.order, "mlp.order");
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(
        std::string(status.message()),
        testing::AllOf(testing::HasSubstr("\"mlp.order\""), testing::HasSubstr(test.problem),
                       testing::HasSubstr("expected each of 0 to 2 once")));
  }
}

// Tensors in a file may begin at any byte.
TEST(ChannelOrderTest, ReadsEntriesAtAnyAlignment) {
  const TensorEntry entry{.name = "order", .shape = {3}, .dtype = DType::kI32};
  const std::string bytes("?\1\0\0\0\2\0\0\0\0\0\0\0", 13);
  const auto* const data = reinterpret_cast<const std::byte*>(bytes.data());
  const auto order = ReadOrder({&entry, {data + 1, 12}});
  ASSERT_TRUE(order.ok()) << order.status();
  EXPECT_EQ(*order, (std::vector<int64_t>{1, 2, 0}));
}

}  // namespace
}  // namespace latentforge::checkpoint

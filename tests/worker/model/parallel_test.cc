#include "worker/model/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace latentforge::model {
namespace {

TEST(ParallelForTest, ItsRangesHaveEachOnce) {
  for (const int64_t count : {1, 2, 3, 1000}) {
    std::vector<std::atomic<int>> calls(static_cast<size_t>(count));
    ParallelFor(count, [&](int64_t begin, int64_t end) {
      EXPECT_LT(begin, end);
      for (int64_t i = begin; i < end; ++i) ++calls[static_cast<size_t>(i)];
    });
    for (const std::atomic<int>& calls_of_one : calls) EXPECT_EQ(calls_of_one, 1);
  }
}

TEST(ParallelForTest, NothingToDo) {
  ParallelFor(0, [](int64_t, int64_t) { FAIL(); });
}

TEST(ParallelForTest, AnExceptionComesOut) {
  EXPECT_THROW(ParallelFor(100,
                           [](int64_t begin, int64_t end) {
                             if (begin <= 50 && 50 < end) throw std::runtime_error("the fiftieth");
                           }),
               std::runtime_error);
}

}  // namespace
}  // namespace latentforge::model

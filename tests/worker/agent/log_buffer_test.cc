#include "worker/agent/log_buffer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const absl::Time kNow = absl::FromUnixMillis(1'700'000'000'250);

std::vector<int64_t> Sequences(const LogBuffer& buffer) {
  std::vector<int64_t> sequences;
  for (const v1::AttemptLogLine& line : buffer.Batch()) sequences.push_back(line.sequence());
  return sequences;
}

TEST(LogBufferTest, NumbersLinesAndKeepsThemUntilTheyAreAcknowledged) {
  LogBuffer buffer;
  buffer.Push("one", false, kNow);
  buffer.Push("two", true, kNow);
  const std::vector<v1::AttemptLogLine> batch = buffer.Batch();
  ASSERT_EQ(batch.size(), 2u);
  EXPECT_EQ(batch[0].text(), "one");
  EXPECT_FALSE(batch[0].truncated());
  EXPECT_EQ(batch[0].time().seconds(), 1'700'000'000);
  EXPECT_EQ(batch[0].time().nanos(), 250'000'000);
  EXPECT_TRUE(batch[1].truncated());
  EXPECT_THAT(Sequences(buffer), ElementsAre(1, 2));
  buffer.Acknowledge(1);
  EXPECT_THAT(Sequences(buffer), ElementsAre(2));
  buffer.Acknowledge(2);
  EXPECT_THAT(Sequences(buffer), IsEmpty());
  buffer.Push("three", false, kNow);
  EXPECT_THAT(Sequences(buffer), ElementsAre(3));
}

TEST(LogBufferTest, TheOldestLinesMakeRoomAndLeaveAGap) {
  LogBuffer buffer({.max_lines = 3});
  for (int i = 0; i < 10; ++i) buffer.Push("x", false, kNow);
  EXPECT_THAT(Sequences(buffer), ElementsAre(8, 9, 10));
  EXPECT_EQ(buffer.dropped(), 7);
}

TEST(LogBufferTest, BytesAreBoundedToo) {
  LogBuffer buffer({.max_bytes = 100});
  for (int i = 0; i < 10; ++i) buffer.Push(std::string(40, 'x'), false, kNow);
  EXPECT_THAT(Sequences(buffer), ElementsAre(9, 10));
  buffer.Push(std::string(1000, 'x'), false, kNow);
  EXPECT_THAT(Sequences(buffer), ElementsAre(11)) << "the last line stays, however long";
}

TEST(LogBufferTest, ABatchIsWhatOneCallMayHold) {
  LogBuffer buffer({.batch_lines = 3, .batch_bytes = 10});
  for (int i = 0; i < 4; ++i) buffer.Push("x", false, kNow);
  EXPECT_TRUE(buffer.HasBatch());
  EXPECT_THAT(Sequences(buffer), ElementsAre(1, 2, 3));
  buffer.Acknowledge(3);
  EXPECT_FALSE(buffer.HasBatch());
  buffer.Push(std::string(50, 'x'), false, kNow);
  EXPECT_TRUE(buffer.HasBatch());
  EXPECT_THAT(Sequences(buffer), ElementsAre(4));
  buffer.Acknowledge(4);
  EXPECT_THAT(Sequences(buffer), ElementsAre(5)) << "at least one";
}

}  // namespace
}  // namespace latentforge::agent

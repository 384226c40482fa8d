#include "worker/agent/event_buffer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::agent {
namespace {

using ::testing::ElementsAre;

v1::AttemptEvent Progress(int64_t sequence) {
  v1::AttemptEvent event;
  event.set_sequence(sequence);
  event.mutable_progress()->set_percent(static_cast<double>(sequence));
  return event;
}

v1::AttemptEvent Log(int64_t sequence, size_t bytes = 1) {
  v1::AttemptEvent event;
  event.set_sequence(sequence);
  event.mutable_log()->set_text(std::string(bytes, 'x'));
  return event;
}

v1::AttemptEvent Started(int64_t sequence) {
  v1::AttemptEvent event;
  event.set_sequence(sequence);
  event.mutable_phase_started()->set_phase(v1::PHASE_CALIBRATING);
  return event;
}

std::vector<int64_t> Sequences(const EventBuffer& buffer) {
  std::vector<int64_t> sequences;
  for (const v1::AttemptEvent& event : buffer.Batch()) sequences.push_back(event.sequence());
  return sequences;
}

TEST(EventBufferTest, KeepsEventsUntilTheyAreAcknowledged) {
  EventBuffer buffer({.batch_events = 2});
  for (int i = 1; i <= 3; ++i) ASSERT_TRUE(buffer.Push(Progress(i)).ok());
  EXPECT_THAT(Sequences(buffer), ElementsAre(1, 2));
  EXPECT_THAT(Sequences(buffer), ElementsAre(1, 2));
  buffer.Acknowledge(2);
  EXPECT_THAT(Sequences(buffer), ElementsAre(3));
  buffer.Acknowledge(3);
  EXPECT_TRUE(buffer.empty());
  EXPECT_THAT(Sequences(buffer), ElementsAre());
}

TEST(EventBufferTest, ABatchIsBoundedInBytesButNeverEmpty) {
  EventBuffer buffer({.batch_bytes = 1000});
  ASSERT_TRUE(buffer.Push(Log(1, 5000)).ok());
  ASSERT_TRUE(buffer.Push(Log(2, 600)).ok());
  ASSERT_TRUE(buffer.Push(Log(3, 600)).ok());
  EXPECT_THAT(Sequences(buffer), ElementsAre(1));
  buffer.Acknowledge(1);
  EXPECT_THAT(Sequences(buffer), ElementsAre(2));
}

TEST(EventBufferTest, DropsTheOldestProgressFirstAndPhasesNever) {
  EventBuffer buffer({.max_events = 4});
  ASSERT_TRUE(buffer.Push(Started(1)).ok());
  ASSERT_TRUE(buffer.Push(Log(2)).ok());
  ASSERT_TRUE(buffer.Push(Progress(3)).ok());
  ASSERT_TRUE(buffer.Push(Progress(4)).ok());
  ASSERT_TRUE(buffer.Push(Progress(5)).ok());
  EXPECT_THAT(Sequences(buffer), ElementsAre(1, 2, 4, 5));
  ASSERT_TRUE(buffer.Push(Started(6)).ok());
  ASSERT_TRUE(buffer.Push(Started(7)).ok());
  EXPECT_THAT(Sequences(buffer), ElementsAre(1, 2, 6, 7));
  ASSERT_TRUE(buffer.Push(Started(8)).ok());
  EXPECT_THAT(Sequences(buffer), ElementsAre(1, 6, 7, 8));
  EXPECT_EQ(buffer.Push(Started(9)).code(), absl::StatusCode::kResourceExhausted);
}

TEST(EventBufferTest, IsBoundedInBytes) {
  EventBuffer buffer({.max_bytes = 100'000});
  for (int i = 1; i <= 1000; ++i) ASSERT_TRUE(buffer.Push(Log(i, 1000)).ok());
  EXPECT_LT(buffer.size(), 100u);
  EXPECT_GT(buffer.size(), 90u);
}

}  // namespace
}  // namespace latentforge::agent

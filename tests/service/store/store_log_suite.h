// What every Store must do with the logs of attempts.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/service/store/store_fixture.h"

namespace latentforge::service {

class StoreLogTest : public StoreTestSuite {
 protected:
  void SetUp() override {
    StoreTestSuite::SetUp();
    Create(Job("a"));
  }

  // Lines `first` to `last` of an attempt, each with this text.
  LogAppended Append(int32_t attempt, int64_t first, int64_t last, const std::string& text = "line",
                     const LogLimits& keep = {}) {
    LogAppend append{.job = "a", .attempt = attempt, .keep = keep};
    for (int64_t sequence = first; sequence <= last; ++sequence)
      append.lines.push_back({sequence, kStart + absl::Seconds(sequence), text});
    const auto appended = store_->AppendLogs(append);
    EXPECT_TRUE(appended.ok()) << appended.status();
    return appended.value_or(LogAppended());
  }

  std::vector<int64_t> Sequences(const LogQuery& query) {
    const auto lines = store_->Logs(query);
    EXPECT_TRUE(lines.ok()) << lines.status();
    std::vector<int64_t> sequences;
    for (const LogRecord& line : lines.value_or(std::vector<LogRecord>()))
      sequences.push_back(line.sequence);
    return sequences;
  }
};

TEST_P(StoreLogTest, KeepsEveryFieldOfEachAttemptsLines) {
  Append(1, 1, 2, "first attempt: caf\xC3\xA9");
  Append(2, 1, 1, "second");
  store_ = &harness_->Reopen();
  const auto lines = store_->Logs({.job = "a", .attempt = 1});
  ASSERT_TRUE(lines.ok()) << lines.status();
  ASSERT_EQ(lines->size(), 2u);
  EXPECT_EQ(lines->back().sequence, 2);
  EXPECT_EQ(lines->back().time, kStart + absl::Seconds(2));
  EXPECT_EQ(lines->back().text, "first attempt: caf\xC3\xA9");
  EXPECT_EQ(store_->Logs({.job = "a", .attempt = 2})->front().text, "second");
  EXPECT_THAT(Sequences({.job = "a", .attempt = 3}), testing::IsEmpty());
}

TEST_P(StoreLogTest, PagesComeInOrderAfterASequence) {
  Append(1, 1, 9);
  EXPECT_THAT(Sequences({.job = "a", .attempt = 1, .after = 4, .limit = 3}),
              testing::ElementsAre(5, 6, 7));
  EXPECT_THAT(Sequences({.job = "a", .attempt = 1, .after = 9}), testing::IsEmpty());
  EXPECT_EQ(*store_->LogTail("a", 1, 2), 7);
  EXPECT_EQ(*store_->LogTail("a", 1, 9), 0);
  EXPECT_EQ(*store_->LogTail("a", 2, 5), 0);
}

TEST_P(StoreLogTest, RepeatedLinesAreIgnoredAndMissingOnesCounted) {
  EXPECT_EQ(Append(1, 1, 3).added, 3);
  const LogAppended repeated = Append(1, 2, 4);
  EXPECT_EQ(repeated.added, 1);
  EXPECT_EQ(repeated.missing, 0);
  EXPECT_EQ(repeated.last_sequence, 4);
  const LogAppended late = Append(1, 8, 9);
  EXPECT_EQ(late.added, 2);
  EXPECT_EQ(late.missing, 3);
  EXPECT_EQ(Append(1, 1, 9).added, 0);
  EXPECT_THAT(Sequences({.job = "a", .attempt = 1}), testing::ElementsAre(1, 2, 3, 4, 8, 9));
}

TEST_P(StoreLogTest, OnlyTheLastLinesAreKept) {
  const LogLimits keep = {.lines = 3};
  Append(1, 1, 2, "x", keep);
  Append(1, 3, 10, "x", keep);
  Append(2, 1, 1, "x", keep);
  EXPECT_THAT(Sequences({.job = "a", .attempt = 1}), testing::ElementsAre(8, 9, 10));
  EXPECT_THAT(Sequences({.job = "a", .attempt = 2}), testing::ElementsAre(1));
}

TEST_P(StoreLogTest, OnlySoManyBytesAreKept) {
  const LogLimits keep = {.bytes = 1000};
  for (int64_t i = 1; i <= 30; ++i) Append(1, i, i, std::string(100, 'x'), keep);
  EXPECT_THAT(Sequences({.job = "a", .attempt = 1}),
              testing::ElementsAre(21, 22, 23, 24, 25, 26, 27, 28, 29, 30));
  Append(1, 31, 31, std::string(2000, 'x'), keep);  // the last one stays, however long
  EXPECT_THAT(Sequences({.job = "a", .attempt = 1}), testing::ElementsAre(31));
}

TEST_P(StoreLogTest, LogsGoWithTheirJob) {
  Append(1, 1, 3);
  ASSERT_TRUE(store_->Delete({"a", store_->Get("a")->version, kStart}).ok());
  EXPECT_EQ(ReasonOf(store_->Logs({.job = "a", .attempt = 1}).status()), kJobNotFound);
  EXPECT_EQ(ReasonOf(store_->LogTail("a", 1, 3).status()), kJobNotFound);
  EXPECT_EQ(ReasonOf(store_->AppendLogs({.job = "a", .attempt = 1}).status()), kJobNotFound);
}

TEST_P(StoreLogTest, AppendingDisturbsNoTransition) {
  const JobRecord record = *store_->Get("a");
  Append(1, 1, 3);
  EXPECT_EQ(Commit(To(v1::JOB_STATE_RUNNING, record)).version, record.version + 1);
}

}  // namespace latentforge::service

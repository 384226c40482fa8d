#include "service/store/group_commit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

class GroupCommitTest : public testing::Test {
 protected:
  GroupCommitTest()
      : path_(dir_.path() / "db"),
        group_(Database::Open(path_, Database::Mode::kReadWrite).value()) {
    EXPECT_TRUE(
        group_.Run([](Database& db) { return db.Execute("PRAGMA user_version = 1"); }).ok());
    EXPECT_TRUE(group_.Run([](Database& db) { return db.Execute("CREATE TABLE t (n)"); }).ok());
  }

  static absl::Status Insert(Database& db, int64_t n) {
    LF_ASSIGN_OR_RETURN(Statement insert, db.Prepare("INSERT INTO t VALUES (?)"));
    return insert.Bind(n).Run();
  }

  std::vector<int64_t> Rows() {
    Database db = Database::Open(path_, Database::Mode::kReadOnly).value();
    Statement query = db.Prepare("SELECT n FROM t ORDER BY n").value();
    std::vector<int64_t> rows;
    while (query.Step().value()) rows.push_back(query.Int());
    return rows;
  }

  // Holds the connection until Release, so that others queue up.
  class Blocker {
   public:
    explicit Blocker(GroupCommit& group)
        : thread_([&] {
            group
                .Run([&](Database&) {
                  entered_.Notify();
                  released_.WaitForNotification();
                  return absl::OkStatus();
                })
                .IgnoreError();
          }) {
      entered_.WaitForNotification();
    }
    void Release() {
      released_.Notify();
      thread_.join();
    }

   private:
    absl::Notification entered_, released_;
    std::thread thread_;
  };

  TempDir dir_;
  const std::filesystem::path path_;
  GroupCommit group_;
};

TEST_F(GroupCommitTest, WhatReturnedIsThereForOthers) {
  ASSERT_TRUE(group_.Run([](Database& db) { return Insert(db, 7); }).ok());
  EXPECT_THAT(Rows(), testing::ElementsAre(7));
}

TEST_F(GroupCommitTest, ManyCallersAllWrite) {
  std::vector<std::thread> threads;
  std::atomic<int> fine = 0;
  for (int64_t i = 0; i < 16; ++i) {
    threads.emplace_back([&, i] {
      for (int64_t j = 0; j < 20; ++j) {
        fine += group_.Run([&](Database& db) { return Insert(db, i * 20 + j); }).ok();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(fine, 320);
  const std::vector<int64_t> rows = Rows();
  ASSERT_EQ(rows.size(), 320u);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i], static_cast<int64_t>(i));
}

TEST_F(GroupCommitTest, OneThatFailsLeavesNothingAndTheOthersStay) {
  Blocker blocker(group_);
  std::vector<absl::Status> results(6);
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      results[static_cast<size_t>(i)] = group_.Run([&](Database& db) -> absl::Status {
        LF_RETURN_IF_ERROR(Insert(db, i));
        return i % 2 == 0 ? absl::OkStatus() : absl::AbortedError(absl::StrCat("no ", i));
      });
    });
  }
  blocker.Release();
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(Rows(), testing::ElementsAre(0, 2, 4));
  EXPECT_TRUE(results[4].ok());
  EXPECT_EQ(results[3].message(), "no 3");
}

TEST_F(GroupCommitTest, ATransactionThatSqliteGivesUpIsEverybodysError) {
  Blocker blocker(group_);
  std::vector<absl::Status> results(4);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < results.size(); ++i) {
    threads.emplace_back([&, i] {
      results[i] = group_.Run([&](Database& db) -> absl::Status {
        LF_RETURN_IF_ERROR(Insert(db, static_cast<int64_t>(i)));
        // What SQLite does by itself when the disk is full.
        LF_RETURN_IF_ERROR(db.Execute("ROLLBACK"));
        return absl::ResourceExhaustedError("full");
      });
    });
  }
  blocker.Release();
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& result : results) EXPECT_FALSE(result.ok());
  EXPECT_THAT(Rows(), testing::IsEmpty());
  EXPECT_TRUE(group_.Run([](Database& db) { return Insert(db, 5); }).ok());
  EXPECT_THAT(Rows(), testing::ElementsAre(5));
}

TEST_F(GroupCommitTest, ACommitThatFailsIsEverybodysError) {
  // Another connection's lock, held for longer than the writer waits: 5 s.
  Database other = Database::Open(path_, Database::Mode::kReadWrite).value();
  ASSERT_TRUE(other.Execute("BEGIN IMMEDIATE").ok());
  std::vector<absl::Status> results(3);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < results.size(); ++i) {
    threads.emplace_back(
        [&, i] { results[i] = group_.Run([](Database& db) { return Insert(db, 1); }); });
  }
  threads[0].join();
  ASSERT_TRUE(other.Execute("ROLLBACK").ok());
  for (size_t i = 1; i < threads.size(); ++i) threads[i].join();
  int failed = 0;
  for (const absl::Status& result : results) {
    if (result.ok()) continue;
    ++failed;
    EXPECT_EQ(result.code(), absl::StatusCode::kUnavailable) << result;
  }
  EXPECT_GT(failed, 0);
  EXPECT_EQ(Rows().size(), results.size() - static_cast<size_t>(failed));
}

}  // namespace
}  // namespace latentforge::service

// What SQLite does for a statement.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "service/store/sqlite_db.h"
#include "service/store/sqlite_schema.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {

// How it would run the statement, a line for each step.
inline std::string PlanOf(Database& db, const std::string& sql) {
  auto explain = db.Prepare("EXPLAIN QUERY PLAN " + sql);
  EXPECT_TRUE(explain.ok()) << explain.status();
  std::string plan;
  while (explain.ok()) {
    const auto row = explain->Step();
    EXPECT_TRUE(row.ok()) << row.status();
    if (!row.ok() || !*row) break;
    for (int i = 0; i < 3; ++i) explain->Int();
    absl::StrAppend(&plan, explain->Text(), "\n");
  }
  return plan;
}

// A store's tables, empty.
class SqliteTablesTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = Database::Open(dir_.path() / "jobs.db", Database::Mode::kReadWrite);
    ASSERT_TRUE(opened.ok()) << opened.status();
    db_.emplace(*std::move(opened));
    ASSERT_TRUE(Migrate(*db_, absl::UnixEpoch()).ok());
  }

  TempDir dir_;
  std::optional<Database> db_;
};

}  // namespace latentforge::service

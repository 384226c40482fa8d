#include "service/store/sqlite_claim.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/service/store/sqlite_plan.h"

namespace latentforge::service {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class SqliteClaimTest : public SqliteTablesTest {};

// Without statistics, which no server collects, a plan does not depend on how many rows
// there are.
TEST_F(SqliteClaimTest, EveryStatementSearchesAPartialIndexAndSortsNothing) {
  const sqlite::ClaimSql sql = sqlite::ClaimStatements();
  const std::pair<std::string, std::string> plans[] = {
      {sql.next_needs, "USING COVERING INDEX jobs_by_kind (tenant=? AND needs>?)"},
      {sql.next_tenant, "USING COVERING INDEX jobs_by_kind (tenant>?)"},
      {sql.first_of_kind, "USING COVERING INDEX jobs_by_kind (tenant=? AND needs=?)"},
      {sql.running, "USING COVERING INDEX jobs_running (tenant=?)"},
      {sql.waiting, "USING COVERING INDEX jobs_by_kind (tenant=?)"},
      {sql.waiting, "USING COVERING INDEX jobs_paused (tenant=?)"},
      {sql.next_paused, "USING COVERING INDEX jobs_paused (tenant=? AND needs>?)"},
      {sql.has_needs, "USING COVERING INDEX jobs_by_kind (tenant=? AND needs=?)"},
      {sql.has_needs, "USING COVERING INDEX jobs_paused (tenant=? AND needs=? AND state=?)"}};
  for (const auto& [statement, step] : plans) {
    EXPECT_THAT(PlanOf(*db_, statement),
                AllOf(HasSubstr("SEARCH jobs " + step), Not(HasSubstr("SCAN jobs")),
                      Not(HasSubstr("TEMP B-TREE"))))
        << statement;
  }
}

// The program that SQLite runs for it, an operation for each line.
std::string ProgramOf(Database& db, const std::string& sql) {
  auto explain = db.Prepare("EXPLAIN " + sql);
  EXPECT_TRUE(explain.ok()) << explain.status();
  std::string program;
  while (explain.ok()) {
    const auto row = explain->Step();
    EXPECT_TRUE(row.ok()) << row.status();
    if (!row.ok() || !*row) break;
    explain->Int();
    absl::StrAppend(&program, explain->Text(), "\n");
  }
  return program;
}

// With SeekGE it would pass by every job of the kind that it leaves.
TEST_F(SqliteClaimTest, AStepToTheNextKindLeapsOverItsJobs) {
  const sqlite::ClaimSql sql = sqlite::ClaimStatements();
  for (const std::string& statement : {sql.next_needs, sql.next_tenant}) {
    EXPECT_THAT(ProgramOf(*db_, statement),
                AllOf(HasSubstr("SeekGT"), Not(HasSubstr("SeekGE")), Not(HasSubstr("Sort"))))
        << statement;
  }
}

}  // namespace
}  // namespace latentforge::service

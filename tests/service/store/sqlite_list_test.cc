#include "service/store/sqlite_list.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/service/store/sqlite_plan.h"

namespace latentforge::service {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr v1::JobState kQueued = v1::JOB_STATE_QUEUED;
constexpr v1::JobState kSucceeded = v1::JOB_STATE_SUCCEEDED;

class SqliteListTest : public SqliteTablesTest {
 protected:
  // Jobs of one tenant, which succeeded but for every tenth, with ordinals from 1 on.
  void InsertJobs(int64_t count) {
    const std::string insert = absl::StrCat(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ", count,
        ") INSERT INTO jobs (id, tenant, version, state, job, status, estimate, output_path, "
        "last_sequence, update_time, lease_epoch, completed_epoch, counted_attempts, "
        "attempt_sequence, attempt_start_time, lease_expire_time, queue_time, claimable_time, "
        "progress_event_time, progress_event_percent) SELECT 'j' || i, 'busy', 1, "
        "iif(i % 10, 4, 1), x'', x'', x'', '', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM n");
    const absl::Status inserted = db_->Execute(insert);
    ASSERT_TRUE(inserted.ok()) << inserted;
  }

  void Label(const std::string& key, const std::string& condition) {
    const absl::Status labelled = db_->Execute(absl::StrCat(
        "INSERT INTO job_labels SELECT ordinal, '", key, "', 'yes' FROM jobs WHERE ", condition));
    ASSERT_TRUE(labelled.ok()) << labelled;
  }

  std::vector<int64_t> Ordinals(const JobQuery& query) {
    const auto listed = sqlite::ListJobs(*db_, query);
    EXPECT_TRUE(listed.ok()) << listed.status();
    std::vector<int64_t> ordinals;
    if (listed.ok())
      for (const JobRecord& record : *listed) ordinals.push_back(record.ordinal);
    return ordinals;
  }
};

TEST_F(SqliteListTest, EveryListWalksAnIndexAndSortsNothing) {
  const std::string of_tenant = "jobs_by_tenant (tenant=? AND ordinal<?)";
  const std::string of_state = "jobs_by_tenant_and_state (tenant=? AND state=? AND ordinal<?)";
  const std::pair<JobQuery, std::string> plans[] = {
      {{}, "INTEGER PRIMARY KEY (rowid<?)"},
      {{.states = {kQueued}}, "INDEX jobs_by_state (state=? AND ordinal<?)"},
      {{.states = {kQueued, kSucceeded}}, "INDEX jobs_by_state (state=? AND ordinal<?)"},
      {{.tenant = "t"}, "INDEX " + of_tenant},
      {{.tenant = "t", .labels = {{"a", "b"}}}, "INDEX " + of_tenant},
      {{.tenant = "t", .states = {kQueued}}, "INDEX " + of_state},
      {{.tenant = "t", .states = {kQueued, kSucceeded}}, "INDEX " + of_state},
      {{.tenant = "t", .states = {kQueued, kSucceeded}, .labels = {{"a", "b"}, {"c", "d"}}},
       "INDEX " + of_state}};
  for (const auto& [query, step] : plans) {
    const std::string plan = PlanOf(*db_, sqlite::ListStatement(query, std::nullopt));
    EXPECT_THAT(plan, AllOf(HasSubstr("SEARCH jobs USING " + step), Not(HasSubstr("SCAN jobs")),
                            Not(HasSubstr("TEMP B-TREE")), Not(HasSubstr("LIST SUBQUERY"))));
    if (!query.labels.empty()) {
      EXPECT_THAT(plan,
                  HasSubstr("job_labels USING PRIMARY KEY (key=? AND value=? AND ordinal=?)"));
    }
  }
}

TEST_F(SqliteListTest, ALabelOfFewJobsIsLookedUp) {
  const JobQuery query{
      .tenant = "t", .states = {kQueued, kSucceeded}, .labels = {{"a", "b"}, {"c", "d"}}};
  for (const size_t few : {0, 1}) {
    EXPECT_THAT(PlanOf(*db_, sqlite::ListStatement(query, few)),
                AllOf(HasSubstr("SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"),
                      HasSubstr("job_labels USING PRIMARY KEY (key=? AND value=? AND ordinal<?)"),
                      HasSubstr("job_labels USING PRIMARY KEY (key=? AND value=? AND ordinal=?)"),
                      Not(HasSubstr("SCAN")), Not(HasSubstr("TEMP B-TREE"))));
  }
}

TEST_F(SqliteListTest, LabelsOfFewAndOfManyJobsGiveTheSameOrder) {
  const int64_t jobs = 4 * sqlite::kFewJobs;
  InsertJobs(jobs);
  Label("all", "true");
  Label("even", "ordinal % 2 = 0");
  Label("third", "ordinal % 999 = 0");
  Label("old", absl::StrCat("ordinal <= ", sqlite::kFewJobs + 500));
  const std::string yes = "yes";
  EXPECT_THAT(Ordinals({.tenant = "busy", .labels = {{"all", yes}}, .limit = 3}),
              ElementsAre(4000, 3999, 3998));
  EXPECT_THAT(Ordinals({.tenant = "busy",
                        .states = {kQueued, kSucceeded, kQueued},
                        .labels = {{"all", yes}, {"even", yes}},
                        .before_ordinal = 3993,
                        .limit = 3}),
              ElementsAre(3992, 3990, 3988));
  EXPECT_THAT(
      Ordinals({.tenant = "busy", .states = {kQueued}, .labels = {{"old", yes}}, .limit = 2}),
      ElementsAre(1500, 1490));
  EXPECT_THAT(Ordinals({.tenant = "busy", .labels = {{"third", yes}, {"all", yes}}}),
              ElementsAre(3996, 2997, 1998, 999));
  EXPECT_THAT(Ordinals({.states = {kSucceeded}, .labels = {{"even", yes}, {"third", yes}}}),
              ElementsAre(3996, 1998));
  EXPECT_THAT(Ordinals({.tenant = "calm", .labels = {{"all", yes}}}), IsEmpty());
  EXPECT_THAT(Ordinals({.labels = {{"old", yes}}, .before_ordinal = 1}), IsEmpty());
}

}  // namespace
}  // namespace latentforge::service

#include "service/store/postgres_list.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/store/postgres_store.h"
#include "tests/service/store/postgres_plan.h"
#include "tests/service/store/postgres_server.h"

namespace latentforge::service {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr v1::JobState kQueued = v1::JOB_STATE_QUEUED;
constexpr v1::JobState kFailed = v1::JOB_STATE_FAILED;
constexpr v1::JobState kSucceeded = v1::JOB_STATE_SUCCEEDED;

// Lists of one tenant's oldest jobs, which are queued, and of the rest, which have ended.
class PostgresListTest : public testing::Test {
 protected:
  // Once: it takes seconds.
  static void SetUpTestSuite() {
    uri_ = PostgresServer::Shared().NewDatabase();
    ASSERT_TRUE(PostgresStore::Open(uri_).ok());
    RunSql(uri_, InsertJobs(1, 10'000, "busy", kQueued) +
                     InsertJobs(10'001, 110'000, "busy", kSucceeded) +
                     InsertJobs(110'001, 110'100, "calm", kQueued) +
                     "INSERT INTO job_labels SELECT ordinal, 'all', 'yes' FROM jobs;"
                     "INSERT INTO job_labels SELECT ordinal, 'few', 'yes' FROM jobs "
                     "WHERE ordinal % 10000 = 0;"
                     "INSERT INTO job_labels SELECT ordinal, 'old', 'yes' FROM jobs "
                     "WHERE ordinal <= 5000");
    RunSql(uri_, "VACUUM ANALYZE");
  }

  void SetUp() override {
    auto connection = PgConnection::Connect(uri_, {});
    ASSERT_TRUE(connection.ok()) << connection.status();
    connection_.emplace(*std::move(connection));
  }

  std::string PlanOf(const JobQuery& query, std::optional<size_t> few = std::nullopt) {
    const postgres::ListSql sql = postgres::ListStatement(query, few);
    return RunPlanOf(*connection_, sql.text, sql.params);
  }

  std::vector<int64_t> Ordinals(const JobQuery& query) {
    const auto listed = postgres::ListJobs(*connection_, query);
    EXPECT_TRUE(listed.ok()) << listed.status();
    std::vector<int64_t> ordinals;
    if (listed.ok())
      for (const JobRecord& record : *listed) ordinals.push_back(record.ordinal);
    return ordinals;
  }

  inline static std::string uri_;
  std::optional<PgConnection> connection_;
};

TEST_F(PostgresListTest, OfTenantAndStatesItWalksAnIndexAndReadsAPage) {
  const JobQuery queries[] = {
      {.tenant = "busy", .states = {kQueued}},
      {.tenant = "busy", .states = {kFailed}},
      {.tenant = "busy", .states = {kQueued, kFailed}},
      {.tenant = "busy", .states = {kSucceeded, kQueued}, .before_ordinal = 50'000},
      {.tenant = "calm", .states = {kQueued, kFailed, kSucceeded}},
      {.tenant = "busy", .states = {kQueued}, .labels = {{"all", "yes"}}}};
  for (const JobQuery& query : queries) {
    const std::string plan = PlanOf(query);
    EXPECT_THAT(plan, AllOf(HasSubstr("Backward using job_states_by_tenant on job_states"),
                            Not(HasSubstr("Seq Scan")), Not(HasSubstr("Sort Method")),
                            Not(HasSubstr("Rows Removed by Filter"))));
    // Of the whole statement: the first figure. 50 jobs by their keys are 300 pages,
    // with labels 500.
    const size_t at = plan.find("shared hit=");
    ASSERT_NE(at, std::string::npos) << plan;
    EXPECT_LT(std::stoi(plan.substr(at + 11)), 600) << plan;
  }
}

// All jobs have the one: those that are newer than the queued ones are not passed by.
TEST_F(PostgresListTest, ALabelIsAskedOfEachJobOrLookedUp) {
  EXPECT_THAT(PlanOf({.tenant = "busy", .states = {kQueued}, .labels = {{"all", "yes"}}}),
              AllOf(HasSubstr("SubPlan"), HasSubstr("on job_labels (actual rows=1 loops=50)")));
  EXPECT_THAT(
      PlanOf({.tenant = "busy", .labels = {{"all", "yes"}}}),
      AllOf(HasSubstr("SubPlan"), Not(HasSubstr("Seq Scan")), Not(HasSubstr("Sort Method"))));
  EXPECT_THAT(PlanOf({.tenant = "busy", .states = {kSucceeded}, .labels = {{"few", "yes"}}}, 0),
              AllOf(HasSubstr("using job_labels_pkey"), Not(HasSubstr("SubPlan")),
                    Not(HasSubstr("Seq Scan")), Not(HasSubstr("rows=100000 "))));
}

TEST_F(PostgresListTest, LabelsOfFewAndOfManyJobsGiveTheSameOrder) {
  const std::string yes = "yes";
  EXPECT_THAT(
      Ordinals({.tenant = "busy", .states = {kQueued}, .labels = {{"all", yes}}, .limit = 2}),
      ElementsAre(10'000, 9999));
  EXPECT_THAT(Ordinals({.tenant = "busy", .labels = {{"all", yes}, {"few", yes}}, .limit = 2}),
              ElementsAre(110'000, 100'000));
  EXPECT_THAT(
      Ordinals(
          {.states = {kSucceeded, kQueued}, .labels = {{"few", yes}}, .before_ordinal = 20'001}),
      ElementsAre(20'000, 10'000));
  EXPECT_THAT(
      Ordinals({.tenant = "busy", .states = {kQueued}, .labels = {{"old", yes}}, .limit = 2}),
      ElementsAre(5000, 4999));
}

}  // namespace
}  // namespace latentforge::service

#include "service/store/postgres_claim.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/store/postgres_store.h"
#include "tests/service/store/postgres_plan.h"
#include "tests/service/store/postgres_server.h"

namespace latentforge::service {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class PostgresClaimTest : public testing::Test {
 protected:
  // Once: it takes seconds.
  static void SetUpTestSuite() {
    uri_ = PostgresServer::Shared().NewDatabase();
    ASSERT_TRUE(PostgresStore::Open(uri_).ok());
    RunSql(uri_, InsertJobs(1, 100'000, "busy", v1::JOB_STATE_SUCCEEDED) +
                     InsertJobs(100'001, 110'000, "busy", v1::JOB_STATE_QUEUED) +
                     InsertJobs(110'001, 110'001, "calm", v1::JOB_STATE_QUEUED) +
                     InsertJobs(110'002, 110'100, "calm", v1::JOB_STATE_RUNNING) + "ANALYZE");
  }

  void SetUp() override {
    auto connection = PgConnection::Connect(uri_, {});
    ASSERT_TRUE(connection.ok()) << connection.status();
    connection_.emplace(*std::move(connection));
  }

  std::string PlanOf(const std::string& sql, const PgParams& params) {
    return RunPlanOf(*connection_, sql, params);
  }

  inline static std::string uri_;
  std::optional<PgConnection> connection_;
};

TEST_F(PostgresClaimTest, EveryStatementWalksAPartialIndexAndSortsNothing) {
  const postgres::ClaimSql sql = postgres::ClaimStatements();
  const absl::Time now = absl::FromUnixSeconds(1);
  const std::pair<std::string, PgParams> statements[] = {
      {sql.kinds, PgParams().Bind(now)},
      {sql.first_of_kind, PgParams().BindText("busy").BindText("1024").Bind(now)}};
  for (const auto& [statement, params] : statements) {
    EXPECT_THAT(PlanOf(statement, params),
                AllOf(HasSubstr("using job_states_by_kind"), Not(HasSubstr("Seq Scan on job")),
                      Not(HasSubstr("Sort")), Not(HasSubstr("rows=10000 "))))
        << statement;
  }
  EXPECT_THAT(PlanOf(sql.running, PgParams().BindText("calm")),
              AllOf(HasSubstr("job_states_leased"), Not(HasSubstr("Seq Scan"))));
  EXPECT_THAT(PlanOf(sql.waiting, PgParams().BindText("calm")),
              AllOf(HasSubstr("job_states_by_kind"), HasSubstr("job_states_paused"),
                    Not(HasSubstr("Seq Scan"))));
  EXPECT_THAT(PlanOf(sql.waiting_needs, PgParams().BindText("busy")),
              AllOf(HasSubstr("job_states_by_kind"), HasSubstr("job_states_paused"),
                    Not(HasSubstr("Seq Scan")), Not(HasSubstr("rows=10000 "))));
}

// The index of 10,000 queued jobs alone has more pages than that.
TEST_F(PostgresClaimTest, AStepToTheNextKindLeapsOverItsJobs) {
  const std::string plan =
      PlanOf(postgres::ClaimStatements().kinds, PgParams().Bind(absl::FromUnixSeconds(1)));
  // Of the whole statement: the first figure.
  const size_t at = plan.find("shared hit=");
  ASSERT_NE(at, std::string::npos) << plan;
  EXPECT_LT(std::stoi(plan.substr(at + 11)), 60) << plan;
}

TEST_F(PostgresClaimTest, TenThousandJobsOfOneTenantAreFewKinds) {
  auto rows = connection_->Run(postgres::ClaimStatements().kinds,
                               PgParams().Bind(absl::FromUnixSeconds(1)));
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->count(), 4);  // three of one tenant, one of the other
}

}  // namespace
}  // namespace latentforge::service

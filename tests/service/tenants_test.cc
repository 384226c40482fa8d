// Jobs of other tenants do not exist for a caller.
#include "absl/strings/str_replace.h"
#include "service/attempts.h"
#include "service/log_session.h"
#include "service/watch_session.h"
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class TenantsTest : public SchedulerFixture {
 protected:
  JobsOf As(const std::string& tenant, Role role = Role::kUser) {
    return JobsOf(*all_jobs_, {.subject = "somebody", .tenant = tenant, .role = role});
  }

  std::string CreateIn(const std::string& tenant, const v1::CreateJobRequest& request) {
    const auto created = As(tenant).Create(request);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->job().name() : "";
  }

  static std::vector<std::string> NamesIn(const absl::StatusOr<v1::ListJobsResponse>& listed) {
    EXPECT_TRUE(listed.ok()) << listed.status();
    std::vector<std::string> names;
    if (listed.ok())
      for (const v1::Job& job : listed->jobs()) names.push_back(job.name());
    return names;
  }

  template <typename Request>
  static Request Naming(const std::string& name) {
    Request request;
    request.set_name(name);
    return request;
  }

  static v1::ListAttemptsRequest InParent(const std::string& name) {
    v1::ListAttemptsRequest request;
    request.set_parent(name);
    return request;
  }

  // How each method that names a job answers, one line each.
  std::string AnswersTo(JobsOf caller, const Identity& identity, const std::string& name) {
    const auto watch = Naming<v1::WatchJobRequest>(name);
    Attempts attempts(*store_, PageTokenCodec("key"));
    LogLooks looks(*store_, clock_, absl::ZeroDuration());
    std::string text;
    for (const absl::Status& status :
         {caller.Get(Naming<v1::GetJobRequest>(name)).status(),
          caller.Cancel(Naming<v1::CancelJobRequest>(name)).status(),
          caller.Pause(Naming<v1::PauseJobRequest>(name)).status(),
          caller.Resume(Naming<v1::ResumeJobRequest>(name)).status(),
          caller.Retry(Naming<v1::RetryJobRequest>(name)).status(),
          attempts.Get(identity, Naming<v1::GetAttemptRequest>(name + "/attempts/1")).status(),
          attempts.List(identity, InParent(name)).status(),
          caller.Delete(Naming<v1::DeleteJobRequest>(name)).status(),
          WatchSession::Start(identity, *store_, hub_, watch, [] {}).status(),
          LogSession::Start(identity, *store_, looks, Naming<v1::ReadLogsRequest>(name)).status()})
      absl::StrAppend(&text, ToRpcStatus(status).DebugString(), "\n");
    return text;
  }
};

TEST_F(TenantsTest, AJobIsItsCreatorsTenants) {
  const auto created = As("search").Create(CreateRequest());
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->job().tenant(), "search");
  Restart();
  EXPECT_EQ(As("search").Get(Naming<v1::GetJobRequest>(created->job().name()))->job().tenant(),
            "search");
}

TEST_F(TenantsTest, AnotherTenantsJobIsAnsweredLikeNone) {
  const std::string job = CreateIn("search", CreateRequest());
  const Identity stranger = {"somebody", "speech", Role::kUser};
  const std::string there = AnswersTo(As("speech"), stranger, job);
  Cancel(CreateJob());  // another job, so that the next name is free
  const std::string absent = AnswersTo(As("speech"), stranger, "jobs/j9");
  EXPECT_EQ(there, absl::StrReplaceAll(absent, {{"j9", "j1"}}));
  EXPECT_THAT(there, HasSubstr("JOB_NOT_FOUND"));
  // And nothing happened to it.
  EXPECT_EQ(As("search").Get(Naming<v1::GetJobRequest>(job))->job().status().state(),
            v1::JOB_STATE_QUEUED);
}

TEST_F(TenantsTest, ListsHoldTheCallersTenantAndAllForAdmins) {
  const std::string first = CreateIn("search", CreateRequest());
  const std::string second = CreateIn("speech", CreateRequest());
  v1::ListJobsRequest request;
  EXPECT_THAT(NamesIn(As("search").List(request)), ElementsAre(first));
  EXPECT_THAT(NamesIn(As("vision").List(request)), IsEmpty());
  EXPECT_THAT(NamesIn(As("ops", Role::kAdmin).List(request)), ElementsAre(second, first));
  request.mutable_filter()->set_tenant("speech");
  EXPECT_THAT(NamesIn(As("ops", Role::kAdmin).List(request)), ElementsAre(second));
  EXPECT_THAT(NamesIn(As("speech").List(request)), ElementsAre(second));
  EXPECT_THAT(NamesIn(As("search").List(request)), IsEmpty());
}

TEST_F(TenantsTest, AdminsReachJobsOfEveryTenant) {
  const std::string job = CreateIn("search", CreateRequest());
  JobsOf admin = As("ops", Role::kAdmin);
  EXPECT_TRUE(admin.Get(Naming<v1::GetJobRequest>(job)).ok());
  EXPECT_TRUE(admin.Cancel(Naming<v1::CancelJobRequest>(job)).ok());
  EXPECT_TRUE(admin.Delete(Naming<v1::DeleteJobRequest>(job)).ok());
}

TEST_F(TenantsTest, RequestIdsAreATenantsOwn) {
  const std::string first = CreateIn("search", CreateRequest("r1"));
  const std::string second = CreateIn("speech", CreateRequest("r1"));
  EXPECT_NE(first, second);
  EXPECT_EQ(CreateIn("search", CreateRequest("r1")), first);
  EXPECT_EQ(CreateIn("speech", CreateRequest("r1")), second);
}

TEST_F(TenantsTest, PageTokensAreATenantsOwn) {
  for (int i = 0; i < 2; ++i) {
    CreateIn("search", CreateRequest());
    CreateIn("speech", CreateRequest());
  }
  v1::ListJobsRequest request;
  request.set_page_size(1);
  request.set_page_token(As("search").List(request)->next_page_token());
  EXPECT_THAT(NamesIn(As("search").List(request)), ElementsAre("jobs/j1"));
  for (const Role role : {Role::kUser, Role::kAdmin})
    EXPECT_EQ(ReasonOf(As("speech", role).List(request).status()), "BAD_PAGE_TOKEN");
}

TEST_F(TenantsTest, AnOutputInUseDoesNotTellWhoseItIs) {
  v1::CreateJobRequest request = CreateRequest();
  request.mutable_spec()->mutable_output()->set_uri("/out");
  const std::string job = CreateIn("search", request);
  EXPECT_THAT(std::string(As("search").Create(request).status().message()), HasSubstr(job));
  const absl::Status refused = As("speech").Create(request).status();
  EXPECT_EQ(ReasonOf(refused), kOutputInUse);
  EXPECT_THAT(ToRpcStatus(refused).DebugString(), Not(HasSubstr(job)));
}

TEST_F(TenantsTest, WorkersRunTheJobsOfEveryTenant) {
  const std::string first = CreateIn("search", CreateRequest());
  const std::string second = CreateIn("speech", CreateRequest());
  EXPECT_EQ(Acquire("w1").lease().job(), first);
  EXPECT_EQ(Acquire("w2").lease().job(), second);
}

}  // namespace
}  // namespace latentforge::service

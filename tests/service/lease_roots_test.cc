// What a lease says of the folders that its attempt may use, and jobs whose folders were taken
// away.
#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class LeaseRootsTest : public SchedulerFixture {
 protected:
  std::string CreateIn(const std::string& tenant, const std::string& source) {
    v1::CreateJobRequest request = CreateRequest();
    request.mutable_spec()->mutable_source()->set_uri("file://" + source);
    const auto created = As(tenant).Create(request);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->job().name() : "";
  }

  v1::Job GetAs(const std::string& tenant, const std::string& name) {
    v1::GetJobRequest request;
    request.set_name(name);
    return As(tenant).Get(request)->job();
  }
};

TEST_F(LeaseRootsTest, ALeaseCarriesTheRootsOfItsTenant) {
  SetTenants(R"({"a": {"allowed_roots": ["/models/a", "/shared"]}})");
  CreateIn("a", "/models/a/m");
  EXPECT_THAT(Acquire().allowed_roots(), ElementsAre("/models/a", "/shared"));
  CreateIn("b", "/models/b/m");
  EXPECT_THAT(Acquire().allowed_roots(), IsEmpty());
  tenants_ = std::make_shared<const TenantTable>(PathRoots{"/models"});
  CreateIn("b", "/models/b/m");
  EXPECT_THAT(Acquire().allowed_roots(), ElementsAre("/models"));
}

TEST_F(LeaseRootsTest, AJobOutsideTheRootsOfNowFailsInsteadOfRunning) {
  SetTenants(R"({"a": {"allowed_roots": ["/models"]}})");
  const std::string gone = CreateIn("a", "/models/a/m");
  const std::string kept = CreateIn("a", "/models/b/m");
  SetTenants(R"({"a": {"allowed_roots": ["/models/b"]}})");
  EXPECT_EQ(Acquire().lease().job(), kept);
  const v1::JobStatus status = GetAs("a", gone).status();
  EXPECT_EQ(status.state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(status.attempt(), 0);
  EXPECT_EQ(status.error().reason(), "PATH_NOT_ALLOWED");
  EXPECT_EQ(status.error().error_class(), v1::ERROR_CLASS_USER);
  EXPECT_THAT(status.error().message(),
              HasSubstr("spec.source.uri: path /models/a/m is outside the allowed roots /models/b, "
                        "which were others when the job was submitted"));
}

TEST_F(LeaseRootsTest, ARetriedJobIsHeldToThemToo) {
  const std::string job = CreateIn("a", "/models/a/m");
  v1::CancelJobRequest cancel;
  cancel.set_name(job);
  ASSERT_TRUE(As("a").Cancel(cancel).ok());
  SetTenants(R"({"*": {"allowed_roots": ["/elsewhere"]}})");
  v1::RetryJobRequest retry;
  retry.set_name(job);
  ASSERT_TRUE(As("a").Retry(retry).ok());
  EXPECT_FALSE(Acquire().has_lease());
  EXPECT_EQ(GetAs("a", job).status().state(), v1::JOB_STATE_FAILED);
}

TEST_F(LeaseRootsTest, ManySuchJobsHoldUpOneCallOnly) {
  for (int i = 0; i < 25; ++i) CreateIn("a", "/models/a/m");
  const std::string last = CreateIn("a", "/models/b/m");
  SetTenants(R"({"a": {"allowed_roots": ["/models/b"]}})");
  EXPECT_FALSE(Acquire().has_lease()) << "twenty jobs fail in one call";
  EXPECT_EQ(Acquire().lease().job(), last);
}

TEST_F(LeaseRootsTest, AWaitingWorkerGetsWhatIsBehindThemAtOnce) {
  for (int i = 0; i < 65; ++i) CreateIn("a", "/models/a/m");
  const std::string last = CreateIn("a", "/models/b/m");
  SetTenants(R"({"a": {"allowed_roots": ["/models/b"]}})");
  Answer answer;
  scheduler_->Acquire(kWorker, AcquireRequest("w", absl::Seconds(10)),
                      [&](auto got) { answer = std::move(got); });
  int ticks = 0;
  while (wakeup_.Wait(absl::ZeroDuration())) {
    Tick();
    ++ticks;
  }
  EXPECT_EQ(ticks, 4);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ((*answer)->lease().job(), last);
}

}  // namespace
}  // namespace latentforge::service

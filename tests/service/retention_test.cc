#include "service/retention.h"

#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

class RetentionTest : public SchedulerFixture {
 protected:
  void Sweep() {
    const absl::Status status = Retention(*engine_, absl::Hours(24)).Sweep();
    EXPECT_TRUE(status.ok()) << status;
  }

  bool Exists(const std::string& name) {
    v1::GetJobRequest request;
    request.set_name(name);
    return jobs_->Get(request).ok();
  }

  static v1::CreateJobRequest WithTtl(int seconds, const std::string& request_id = "") {
    v1::CreateJobRequest request = CreateRequest(request_id);
    request.mutable_spec()->mutable_ttl()->set_seconds(seconds);
    return request;
  }
};

TEST_F(RetentionTest, JobsAreDeletedTheirTimeAfterTheirEnd) {
  const std::string kept = CreateJob();
  const std::string brief = CreateJob(WithTtl(60));
  const std::string waiting = CreateJob(WithTtl(60));
  clock_.Advance(absl::Hours(1));
  Cancel(kept);
  Cancel(brief);
  EXPECT_EQ(GetJob(brief).expire_time().seconds(), GetJob(brief).end_time().seconds() + 60);
  clock_.Advance(absl::Seconds(59));
  Sweep();
  EXPECT_TRUE(Exists(brief));
  clock_.Advance(absl::Seconds(1));
  Sweep();
  EXPECT_FALSE(Exists(brief));
  clock_.Advance(absl::Hours(24 * 365));
  Sweep();
  EXPECT_TRUE(Exists(kept));
  EXPECT_TRUE(Exists(waiting)) << "it has not ended";
}

TEST_F(RetentionTest, TheServersDefaultHoldsForJobsThatNameNoTime) {
  policy_.default_ttl = absl::Hours(1);
  Restart();
  const std::string plain = CreateJob();
  const std::string longer = CreateJob(WithTtl(2 * 3600));
  Cancel(plain);
  Cancel(longer);
  clock_.Advance(absl::Hours(1));
  Sweep();
  EXPECT_FALSE(Exists(plain));
  EXPECT_TRUE(Exists(longer));
}

TEST_F(RetentionTest, ARetriedJobStays) {
  const std::string job = CreateJob(WithTtl(60));
  Cancel(job);
  v1::RetryJobRequest retry;
  retry.set_name(job);
  ASSERT_TRUE(jobs_->Retry(retry).ok());
  EXPECT_FALSE(GetJob(job).has_expire_time());
  clock_.Advance(absl::Hours(1));
  Sweep();
  EXPECT_TRUE(Exists(job));
}

TEST_F(RetentionTest, ADeletedJobIsNotMadeAgainByALateRepetition) {
  const std::string job = CreateJob(WithTtl(60, "r1"));
  Cancel(job);
  clock_.Advance(absl::Minutes(1));
  Sweep();
  for (int i = 0; i < 2; ++i) {
    const absl::Status repeated = jobs_->Create(WithTtl(60, "r1")).status();
    EXPECT_EQ(repeated.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(ReasonOf(repeated), "JOB_DELETED");
    EXPECT_THAT(std::string(repeated.message()), HasSubstr(job));
    Restart();
  }
  EXPECT_EQ(ReasonOf(jobs_->Create(WithTtl(61, "r1")).status()), kRequestIdReused);
  v1::GetJobRequest get;
  get.set_name(job);
  EXPECT_EQ(ReasonOf(jobs_->Get(get).status()), kJobNotFound);
  clock_.Advance(absl::Hours(24) - absl::Seconds(1));
  Sweep();
  EXPECT_EQ(ReasonOf(jobs_->Create(WithTtl(60, "r1")).status()), "JOB_DELETED");
  clock_.Advance(absl::Seconds(1));
  Sweep();
  EXPECT_TRUE(jobs_->Create(WithTtl(60, "r1")).ok());
}

TEST_F(RetentionTest, AUsersDeletionLeavesATombstoneToo) {
  const std::string job = CreateJob(CreateRequest("r1"));
  Cancel(job);
  v1::DeleteJobRequest request;
  request.set_name(job);
  ASSERT_TRUE(jobs_->Delete(request).ok());
  EXPECT_EQ(ReasonOf(jobs_->Create(CreateRequest("r1")).status()), "JOB_DELETED");
}

TEST_F(RetentionTest, SweepsOnceASecondUnlessThereIsMore) {
  Retention retention(*engine_, absl::Hours(24));
  const auto asked = [&] {
    EXPECT_TRUE(retention.Sweep().ok());
    return faulty_.TakeCalls("ExpiredBy");
  };
  EXPECT_EQ(asked(), 1);
  EXPECT_EQ(asked(), 0);
  clock_.StepWall(-absl::Hours(1));
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(asked(), 1);
  for (int i = 0; i < 60; ++i) Cancel(CreateJob(WithTtl(1)));
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(asked(), 1);
  EXPECT_EQ(asked(), 1) << "ten are left";
  EXPECT_EQ(asked(), 0);
}

TEST_F(RetentionTest, ManyJobsGoInBatches) {
  for (int i = 0; i < 120; ++i) Cancel(CreateJob(WithTtl(1)));
  clock_.Advance(absl::Seconds(1));
  v1::ListJobsRequest all;
  all.set_page_size(1000);
  for (const int left : {70, 20, 0}) {
    Sweep();
    EXPECT_EQ(jobs_->List(all)->jobs_size(), left);
  }
}

}  // namespace
}  // namespace latentforge::service

// Engine, jobs and scheduler over a real SQLite store and a fake clock, without
// threads: tests call Tick.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/errors.h"
#include "service/job_engine.h"
#include "service/jobs.h"
#include "service/scheduler.h"
#include "service/store/sqlite_store.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/faulty_store.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {

// Accepts every specification but those whose source is "bad".
class FakeSpecChecker final : public SpecChecker {
 public:
  absl::StatusOr<CheckedSpec> Check(const v1::JobSpec& spec, const PathRoots&) const override {
    if (spec.source().uri() == "bad")
      return MakeFieldError("SOURCE_NOT_READABLE", {{"spec.source.uri", "is bad"}});
    CheckedSpec checked;
    checked.spec = spec;
    checked.estimate.set_peak_memory_bytes(7);
    checked.estimate.set_seconds(60);
    checked.output_path = spec.output().uri();
    return checked;
  }
};

// Counts what it is told.
class CountingObserver final : public Observer {
 public:
  void SubmitDeduplicated() override { Count("deduplicated"); }
  void SubmitRejected(absl::string_view reason) override { Count(reason); }
  void LeaseRenewed() override { Count("renewed"); }
  void FencedWrite(absl::string_view operation) override { Count(operation); }

  int operator[](const std::string& name) {
    absl::MutexLock lock(&mutex_);
    return counts_[name];
  }

 private:
  void Count(absl::string_view name) {
    absl::MutexLock lock(&mutex_);
    ++counts_[std::string(name)];
  }

  absl::Mutex mutex_;
  std::map<std::string, int> counts_ ABSL_GUARDED_BY(mutex_);
};

// Jobs as one caller sees them.
class JobsOf {
 public:
  JobsOf(Jobs& jobs, Identity caller) : jobs_(jobs), caller_(std::move(caller)) {}

  auto Create(const v1::CreateJobRequest& request) { return jobs_.Create(caller_, request); }
  auto Get(const v1::GetJobRequest& request) { return jobs_.Get(caller_, request); }
  auto List(const v1::ListJobsRequest& request) { return jobs_.List(caller_, request); }
  auto Cancel(const v1::CancelJobRequest& request) { return jobs_.Cancel(caller_, request); }
  auto Pause(const v1::PauseJobRequest& request) { return jobs_.Pause(caller_, request); }
  auto Resume(const v1::ResumeJobRequest& request) { return jobs_.Resume(caller_, request); }
  auto Retry(const v1::RetryJobRequest& request) { return jobs_.Retry(caller_, request); }
  auto Delete(const v1::DeleteJobRequest& request) { return jobs_.Delete(caller_, request); }

 private:
  Jobs& jobs_;
  const Identity caller_;
};

class SchedulerFixture : public testing::Test {
 protected:
  SchedulerFixture() { Restart(); }

  // A new server on the same database.
  void Restart() {
    scheduler_.reset();
    jobs_.reset();
    all_jobs_.reset();
    engine_.reset();
    store_.reset();
    auto opened = SqliteStore::Open(dir_.path() / "jobs.db");
    EXPECT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    faulty_.Use(*store_);
    engine_ = std::make_unique<JobEngine>(
        JobEngine::Parts{faulty_, hub_, observer_, clock_, [this] { return tenants_; }}, policy_);
    all_jobs_ =
        std::make_unique<Jobs>(*engine_, checker_, PageTokenCodec("key"),
                               JobsOptions{3, [this] { return absl::StrCat("j", ++last_id_); },
                                           [this] { return scheduler_->Workers(); }});
    jobs_ = std::make_unique<JobsOf>(*all_jobs_, kCaller);
    scheduler_ = std::make_unique<Scheduler>(
        *engine_, wakeup_, PageTokenCodec("key"),
        SchedulerOptions{.lease_duration = absl::Seconds(30), .version = "0.1.0"});
    engine_->set_on_queued([this] { wakeup_.Poke(); });
    EXPECT_TRUE(scheduler_->RenewLeases().ok());
  }

  static v1::CreateJobRequest CreateRequest(const std::string& request_id = "") {
    v1::CreateJobRequest request;
    request.mutable_spec()->mutable_source()->set_uri("/model");
    request.set_request_id(request_id);
    return request;
  }

  std::string CreateJob(const v1::CreateJobRequest& request = CreateRequest()) {
    const auto created = jobs_->Create(request);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->job().name() : "";
  }

  v1::Job GetJob(const std::string& name) {
    v1::GetJobRequest request;
    request.set_name(name);
    const auto got = jobs_->Get(request);
    EXPECT_TRUE(got.ok()) << got.status();
    return got.ok() ? got->job() : v1::Job();
  }

  v1::JobState StateOf(const std::string& name) { return GetJob(name).status().state(); }

  void Cancel(const std::string& name) {
    v1::CancelJobRequest request;
    request.set_name(name);
    EXPECT_TRUE(jobs_->Cancel(request).ok());
  }

  void Pause(const std::string& name) {
    v1::PauseJobRequest request;
    request.set_name(name);
    EXPECT_TRUE(jobs_->Pause(request).ok());
  }

  void Resume(const std::string& name) {
    v1::ResumeJobRequest request;
    request.set_name(name);
    EXPECT_TRUE(jobs_->Resume(request).ok());
  }

  void Tick() {
    const absl::Status status = scheduler_->Tick();
    EXPECT_TRUE(status.ok()) << status;
  }

  static v1::AcquireLeaseRequest AcquireRequest(const std::string& worker,
                                                absl::Duration wait = absl::ZeroDuration(),
                                                const std::string& device = "cpu") {
    v1::AcquireLeaseRequest request;
    request.mutable_worker()->set_name(worker);
    request.mutable_worker()->set_version("0.1.9");
    request.mutable_worker()->set_slots(1);
    request.mutable_worker()->add_devices(device);
    request.mutable_wait()->set_seconds(absl::ToInt64Seconds(wait));
    return request;
  }

  // What --tenants says from now on.
  void SetTenants(const std::string& json) {
    auto parsed = TenantTable::Parse(json);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    tenants_ = std::make_shared<const TenantTable>(*std::move(parsed));
  }

  JobsOf As(const std::string& tenant) {
    return JobsOf(*all_jobs_, {"somebody", tenant, Role::kUser});
  }

  using Answer = std::optional<absl::StatusOr<v1::AcquireLeaseResponse>>;

  // Asks and ticks once.
  v1::AcquireLeaseResponse Acquire(const std::string& worker = "w") {
    Answer answer;
    scheduler_->Acquire(kWorker, AcquireRequest(worker),
                        [&](auto got) { answer = std::move(got); });
    Tick();
    EXPECT_TRUE(answer.has_value() && answer->ok());
    return answer.has_value() && answer->ok() ? **answer : v1::AcquireLeaseResponse();
  }

  absl::StatusOr<v1::HeartbeatResponse> Heartbeat(const v1::Lease& lease) {
    v1::HeartbeatRequest request;
    *request.mutable_lease() = lease;
    return scheduler_->Heartbeat(kWorker, request);
  }

  absl::Status Complete(const v1::Lease& lease, const v1::CompleteAttemptRequest& outcome) {
    v1::CompleteAttemptRequest request = outcome;
    *request.mutable_lease() = lease;
    return scheduler_->Complete(kWorker, request).status();
  }

  static v1::CompleteAttemptRequest Succeeded() {
    v1::CompleteAttemptRequest request;
    request.mutable_result()->set_artifact_uri("file:///out");
    return request;
  }

  inline static const Identity kCaller = {"alice", kDefaultTenant, Role::kUser};
  inline static const Identity kWorker = {"w1", kDefaultTenant, Role::kWorker};
  TempDir dir_;
  FakeClock clock_;
  StatePolicy policy_;  // of the next Restart
  std::shared_ptr<const TenantTable> tenants_ = std::make_shared<const TenantTable>();
  WatchHub hub_;
  CountingObserver observer_;
  FakeSpecChecker checker_;
  Wakeup wakeup_;
  int last_id_ = 0;
  std::unique_ptr<SqliteStore> store_;
  FaultyStore faulty_;  // what the parts below see of it
  std::unique_ptr<JobEngine> engine_;
  std::unique_ptr<Jobs> all_jobs_;
  std::unique_ptr<JobsOf> jobs_;  // as kCaller
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace latentforge::service

// The fixture of the tests that every Store must pass.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/auth/identity.h"
#include "service/errors.h"
#include "service/store/store.h"
#include "service/time_util.h"

namespace latentforge::service {

// Makes and opens again one store; lives as long as a test.
class StoreHarness {
 public:
  virtual ~StoreHarness() = default;
  // Closes the store, if there is one, and opens it again with what it held.
  virtual Store& Reopen() = 0;
};

using StoreHarnessFactory = std::function<std::unique_ptr<StoreHarness>()>;

class StoreTestSuite : public testing::TestWithParam<StoreHarnessFactory> {
 protected:
  void SetUp() override {
    harness_ = GetParam()();
    store_ = &harness_->Reopen();
  }

  inline static const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

  static NewJob Job(const std::string& id, const std::string& output = "",
                    const std::string& request_id = "") {
    NewJob job;
    job.record.id = id;
    job.record.tenant = kDefaultTenant;
    job.record.job.set_tenant(kDefaultTenant);
    job.record.job.set_name("jobs/" + id);
    job.record.job.mutable_spec()->mutable_source()->set_uri("file:///models/" + id);
    job.record.job.mutable_status()->set_state(v1::JOB_STATE_QUEUED);
    *job.record.job.mutable_create_time() = ToProto(kStart);
    *job.record.job.mutable_update_time() = ToProto(kStart);
    job.record.job.set_last_sequence(1);
    job.record.output_path = output;
    job.record.queue_time = kStart;
    job.record.claimable_time = kStart;
    job.record.rank_time = kStart;
    job.events.push_back(Event(1, v1::JOB_STATE_QUEUED));
    job.request_id = request_id;
    job.request_digest = "digest of " + request_id;
    return job;
  }

  static v1::JobEvent Event(int64_t sequence, v1::JobState state) {
    v1::JobEvent event;
    event.set_sequence(sequence);
    event.mutable_state_changed()->set_state(state);
    return event;
  }

  JobRecord Create(const NewJob& job) {
    absl::StatusOr<JobRecord> created = store_->Create(job);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? *created : JobRecord();
  }

  // An update of `record` to `state`, with one event.
  static JobUpdate To(v1::JobState state, JobRecord record) {
    JobUpdate update;
    update.expected_version = record.version;
    update.record = std::move(record);
    update.record.job.mutable_status()->set_state(state);
    update.record.job.set_last_sequence(update.record.job.last_sequence() + 1);
    update.events.push_back(Event(update.record.job.last_sequence(), state));
    return update;
  }

  JobRecord Commit(const JobUpdate& update) {
    absl::StatusOr<JobRecord> committed = store_->Commit(update);
    EXPECT_TRUE(committed.ok()) << committed.status();
    return committed.ok() ? *committed : JobRecord();
  }

  static ClaimQuery ByWorker(absl::Time now, const std::vector<std::string>& devices) {
    ClaimQuery query{.now = now};
    for (const std::string& device : devices) query.worker.add_devices(device);
    return query;
  }
  static ClaimQuery ByCpu(absl::Time now) { return ByWorker(now, {"cpu"}); }
  static ClaimQuery ByCuda(absl::Time now) { return ByWorker(now, {"cpu", "cuda:0"}); }

  // The job that is claimed and runs now; empty when there is none.
  std::string ClaimId(const ClaimQuery& query) {
    const auto claimed = store_->Claim(query, [](const JobRecord& candidate) {
      return absl::StatusOr<JobUpdate>(To(v1::JOB_STATE_RUNNING, candidate));
    });
    EXPECT_TRUE(claimed.ok()) << claimed.status();
    return claimed.ok() && claimed->has_value() ? (*claimed)->id : "";
  }

  // Sequences of all events that are there.
  std::vector<int64_t> EventsOf(const std::string& id) {
    const auto events = store_->Events(id, 0, 1'000'000);
    EXPECT_TRUE(events.ok()) << events.status();
    std::vector<int64_t> sequences;
    if (events.ok())
      for (const v1::JobEvent& event : *events) sequences.push_back(event.sequence());
    return sequences;
  }

  std::vector<std::string> ListIds(const JobQuery& query) {
    const auto listed = store_->List(query);
    EXPECT_TRUE(listed.ok()) << listed.status();
    std::vector<std::string> ids;
    if (listed.ok())
      for (const JobRecord& record : *listed) ids.push_back(record.id);
    return ids;
  }

  std::unique_ptr<StoreHarness> harness_;
  Store* store_ = nullptr;
};

}  // namespace latentforge::service

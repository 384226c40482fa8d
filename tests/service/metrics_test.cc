#include "service/metrics.h"

#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;
using testing::Not;

Transition Decided(const JobRecord& record, const Command& command, absl::Time now) {
  absl::StatusOr<Transition> transition = Decide(record, command, now);
  EXPECT_TRUE(transition.ok()) << transition.status();
  return *std::move(transition);
}

TEST(MetricsTest, CountsTheLifeOfAJob) {
  Metrics metrics;
  const absl::Time start = absl::FromUnixSeconds(1'700'000'000);
  JobRecord record;
  record.job.mutable_status()->set_max_attempts(3);
  record = CreateQueued(record, start).next;
  const auto apply = [&](const Command& command, absl::Time now) {
    const Transition transition = Decided(record, command, now);
    metrics.Transitioned(record, transition);
    record = transition.next;
  };
  apply(command::Claim{"w", absl::Seconds(30)}, start + absl::Seconds(3));
  apply(command::ExpireLease{}, start + absl::Seconds(60));
  apply(command::Claim{"w", absl::Seconds(30)}, start + absl::Seconds(60));
  v1::AttemptEvent finished;
  finished.set_sequence(1);
  finished.mutable_phase_finished()->set_phase(v1::PHASE_CALIBRATING);
  finished.mutable_phase_finished()->set_seconds(12);
  finished.mutable_phase_finished()->set_tokens(4096);
  apply(command::Report{{2, 2}, {finished}, absl::Seconds(30)}, start + absl::Seconds(61));
  v1::ConversionResult result;
  result.set_perplexity_base(10);
  result.set_perplexity_converted(11);
  apply(command::Succeed{{2, 2}, result}, start + absl::Seconds(62));
  const std::string text = metrics.Text();
  for (const char* line :
       {"latentforge_dispatches_total 2", "latentforge_leases_expired_total 1",
        "latentforge_job_queue_wait_seconds_sum 3",
        "latentforge_attempts_finished_total{outcome=\"lease_expired\",phase=\"unspecified\"} 1",
        "latentforge_attempts_finished_total{outcome=\"succeeded\",phase=\"unspecified\"} 1",
        "latentforge_phase_duration_seconds_sum{phase=\"calibrating\"} 12",
        "latentforge_tokens_processed_total{phase=\"calibrating\"} 4096",
        "latentforge_jobs_finished_total{reason=\"\",result=\"succeeded\"} 1",
        "latentforge_job_duration_seconds_sum{result=\"succeeded\"} 62",
        "latentforge_perplexity_ratio_bucket{le=\"1.1\"} 1", "latentforge_build_info{version=\""})
    EXPECT_THAT(text, HasSubstr(line));
}

TEST(MetricsTest, EveryFamilyIsThereBeforeTheFirstEvent) {
  const std::string text = Metrics().Text();
  for (const char* line :
       {"latentforge_phase_resumed_total{phase=\"calibrating\"} 0",
        "latentforge_phase_resumed_total{phase=\"publishing\"} 0",
        "latentforge_submits_rejected_total{reason=\"INVALID_FIELD\"} 0",
        "latentforge_jobs_finished_total{reason=\"\",result=\"succeeded\"} 0",
        "latentforge_jobs_finished_total{reason=\"WORKER_LOST\",result=\"failed\"} 0",
        "latentforge_job_duration_seconds_count{result=\"failed\"} 0",
        "latentforge_watch_closed_total{reason=\"finished\"} 0",
        "latentforge_watch_closed_total{reason=\"SLOW_CONSUMER\"} 0",
        "latentforge_watch_closed_total{reason=\"SEQUENCE_COMPACTED\"} 0",
        "latentforge_fenced_writes_total{operation=\"logs\"} 0", "latentforge_log_lines_total 0",
        "latentforge_auth_failures_total{reason=\"ROLE_NOT_ALLOWED\"} 0",
        "latentforge_watch_events_sent_total{type=\"event\"} 0",
        "grpc_server_started_total{grpc_method=\"CreateJob\",grpc_service=\"latentforge.v1."
        "JobService\"} 0",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Heartbeat\",grpc_service="
        "\"latentforge.v1.WorkerService\"} 0",
        "grpc_server_handling_seconds_count{grpc_method=\"GetJob\""})
    EXPECT_THAT(text, HasSubstr(line));
  EXPECT_THAT(text, Not(HasSubstr("grpc_server_handling_seconds_count{grpc_method=\"WatchJob\"")));
}

TEST(MetricsTest, FailedAttemptsAreToldApartByClass) {
  Metrics metrics;
  JobRecord record;
  record.job.mutable_status()->set_max_attempts(1);
  record = CreateQueued(record, absl::UnixEpoch()).next;
  record = Decided(record, command::Claim{"w", absl::Seconds(30)}, absl::UnixEpoch()).next;
  v1::ConversionError error;
  error.set_reason("DISK_FULL");
  error.set_error_class(v1::ERROR_CLASS_RESOURCE);
  metrics.Transitioned(record, Decided(record, command::Fail{{1, 1}, error}, absl::UnixEpoch()));
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("{outcome=\"failed_resource\",phase=\"unspecified\"} 1"));
  EXPECT_THAT(text, HasSubstr("{reason=\"DISK_FULL\",result=\"failed\"} 1"));
}

TEST(MetricsTest, APausedAttemptIsNoFailure) {
  Metrics metrics;
  JobRecord record;
  record.job.mutable_status()->set_max_attempts(1);
  record = CreateQueued(record, absl::UnixEpoch()).next;
  record = Decided(record, command::Claim{"w", absl::Seconds(30)}, absl::UnixEpoch()).next;
  record = Decided(record, command::Pause{}, absl::UnixEpoch()).next;
  metrics.Transitioned(record, Decided(record, command::Halt{{1, 1}}, absl::UnixEpoch()));
  EXPECT_THAT(metrics.Text(), HasSubstr("{outcome=\"paused\",phase=\"unspecified\"} 1"));
}

TEST(MetricsTest, ReasonsOfWorkersAreBounded) {
  Metrics metrics;
  for (int i = 0; i < 200; ++i) metrics.SubmitRejected(absl::StrCat("REASON_", i));
  EXPECT_THAT(metrics.Text(), HasSubstr("{reason=\"OTHER\"} 136"));
}

TEST(MetricsTest, LinesOfLogsAreCountedAndThoseThatAreMissing) {
  Metrics metrics;
  metrics.LogsAppended({.last_sequence = 9, .added = 5, .missing = 4});
  metrics.LogsRefused();
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("latentforge_log_lines_total 5"));
  EXPECT_THAT(text, HasSubstr("latentforge_log_lines_dropped_total 4"));
  EXPECT_THAT(text, HasSubstr("latentforge_log_appends_refused_total 1"));
}

TEST(MetricsTest, ATakenPortIsAnError) {
  FakeClock clock;
  const auto read = [] { return Metrics::Gauges(); };
  Metrics first;
  const auto address = first.Serve("127.0.0.1:0", clock, read);
  ASSERT_TRUE(address.ok()) << address.status();
  Metrics second;
  const absl::Status taken = second.Serve(*address, clock, read).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(taken.message()), HasSubstr(*address));
}

}  // namespace
}  // namespace latentforge::service

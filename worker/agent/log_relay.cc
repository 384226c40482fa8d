#include "worker/agent/log_relay.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace latentforge::agent {
namespace {

constexpr int kLastTries = 4;
constexpr absl::Duration kLastPause = absl::Milliseconds(200);

}  // namespace

LogRelay::LogRelay(LeaseClient& client, const Clock& clock, Random random,
                   const AttemptControl& control, v1::Lease lease, LogRelayOptions options)
    : client_(client),
      clock_(clock),
      random_(std::move(random)),
      control_(control),
      lease_(std::move(lease)),
      options_(options),
      buffer_(options.buffer),
      thread_([this] { Loop(); }) {}

LogRelay::~LogRelay() {
  Finish();
  thread_.join();
  absl::MutexLock lock(&mutex_);
  if (buffer_.dropped() == 0) return;
  Log(Severity::kWarning, "lines of the log were dropped: the server did not take them in time",
      {{"job", lease_.job()}, {"lines", absl::StrCat(buffer_.dropped())}});
}

void LogRelay::Push(absl::string_view text, bool truncated) {
  const absl::Time now = clock_.Now();
  absl::MutexLock lock(&mutex_);
  buffer_.Push(text, truncated, now);
}

void LogRelay::Finish() {
  absl::MutexLock lock(&mutex_);
  finishing_ = true;
}

LogRelay::Answer LogRelay::Send(const v1::AppendLogsRequest& request) {
  const absl::Status status = client_.AppendLogs(request, options_.call_timeout).status();
  if (status.ok()) return Answer::kTaken;
  if (absl::IsUnavailable(status)) return Answer::kAway;
  if (IsTransient(status)) return Answer::kBusy;
  // The lease is over, which the attempt learns by its heartbeats; or the server is older than
  // logs, or finds fault with them.
  Log(Severity::kInfo, "the log of this attempt is not sent any more",
      {{"job", lease_.job()}, {"error", status.ToString()}});
  return Answer::kNever;
}

bool LogRelay::Pause(Answer answer, Backoff& backoff) {
  {
    absl::MutexLock lock(&mutex_);
    if (!finishing_) {
      mutex_.AwaitWithTimeout(absl::Condition(&finishing_), backoff.Next());
      return true;
    }
  }
  if (answer == Answer::kBusy && ++last_tries_ == kLastTries) return false;
  return control_.Pause(kLastPause);
}

bool LogRelay::AwaitWork(absl::Duration not_before) {
  const auto some = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return finishing_ || !buffer_.empty();
  };
  const auto urgent = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return Urgent(); };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&some));
  const absl::Duration early = not_before - clock_.Monotonic();
  if (early > absl::ZeroDuration()) mutex_.AwaitWithTimeout(absl::Condition(&urgent), early);
  return !buffer_.empty();
}

void LogRelay::Loop() {
  Backoff backoff(options_.interval, 10 * options_.interval, random_);
  absl::Duration not_before = clock_.Monotonic();
  while (AwaitWork(not_before)) {
    v1::AppendLogsRequest request;
    *request.mutable_lease() = lease_;
    {
      absl::MutexLock lock(&mutex_);
      for (v1::AttemptLogLine& line : buffer_.Batch()) *request.add_lines() = std::move(line);
    }
    const Answer answer = Send(request);
    if (answer == Answer::kNever) return;
    not_before = clock_.Monotonic() + options_.interval;
    if (answer != Answer::kTaken) {
      if (!Pause(answer, backoff)) return;
      continue;
    }
    backoff.Reset();
    absl::MutexLock lock(&mutex_);
    buffer_.Acknowledge(request.lines().rbegin()->sequence());
  }
}

}  // namespace latentforge::agent

#include "client/job_watch.h"

#include <algorithm>
#include <utility>

#include "client/error.h"
#include "client/job_tracker.h"

namespace latentforge::client {
bool MayResume(const absl::Status& status, bool received) {
  if (absl::IsUnauthenticated(status)) return received && ReasonOf(status) == "TOKEN_EXPIRED";
  return status.ok() || absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsResourceExhausted(status);
}

JobWatch::JobWatch(ConversionClient& client, Clock& clock, std::string job,
                   std::optional<int64_t> after, WatchOptions options)
    : client_(client),
      clock_(clock),
      job_(std::move(job)),
      options_(options),
      after_(after),
      thread_([this] { Run(); }) {}

JobWatch::~JobWatch() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }
  thread_.join();
}

std::optional<WatchUpdate> JobWatch::Next(absl::Duration wait) {
  absl::MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !updates_.empty(); };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&ready), wait)) return std::nullopt;
  WatchUpdate update = std::move(updates_.front());
  updates_.erase(updates_.begin());
  return update;
}

void JobWatch::Push(WatchUpdate update) {
  absl::MutexLock lock(&mutex_);
  updates_.push_back(std::move(update));
}

bool JobWatch::Stopped() {
  absl::MutexLock lock(&mutex_);
  return stop_;
}

absl::Status JobWatch::RunOnce(absl::Duration timeout, bool* received) {
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mutex_);
    if (stop_) return absl::CancelledError("the watch was stopped");
    context_ = &context;
  }
  v1::WatchJobRequest request;
  request.set_name(job_);
  if (after_.has_value()) request.set_from_sequence(*after_);
  const absl::Status status =
      client_.WatchOnce(request, timeout, &context, [&](const v1::WatchJobResponse& message) {
        *received = true;
        if (message.has_snapshot()) {
          job_ended_ = IsTerminal(message.snapshot().job().status().state());
          if (!after_.has_value()) after_ = message.snapshot().sequence();
        } else if (message.has_event()) {
          after_ = std::max(after_.value_or(0), message.event().sequence());
          if (message.event().has_state_changed()) {
            job_ended_ = IsTerminal(message.event().state_changed().state());
          }
        }
        Push({WatchUpdate::Kind::kMessage, message, absl::OkStatus()});
        return true;
      });
  absl::MutexLock lock(&mutex_);
  context_ = nullptr;
  return status;
}

void JobWatch::Run() {
  absl::Duration backoff = options_.first_backoff;
  absl::Duration last_heard = clock_.Monotonic();
  bool ever_heard = false;
  while (true) {
    bool received = false;
    const absl::Status status =
        RunOnce(ever_heard ? options_.renewal : options_.first_patience, &received);
    if (Stopped()) return;
    // The server ends a stream only when all events of an ended job are out.
    const bool finished = status.ok() && job_ended_;
    const absl::Duration now = clock_.Monotonic();
    if (received) {
      ever_heard = true;
      last_heard = now;
      backoff = options_.first_backoff;
    }
    if (ReasonOf(status) == "SEQUENCE_COMPACTED" && after_.has_value()) {
      after_.reset();
      Push({WatchUpdate::Kind::kRestarted, {}, status});
      continue;
    }
    const absl::Duration patience = ever_heard ? options_.patience : options_.first_patience;
    if (finished || !MayResume(status, received) || now - last_heard >= patience) {
      Push({WatchUpdate::Kind::kEnded, {}, status});
      return;
    }
    if (!status.ok() && !absl::IsDeadlineExceeded(status)) {
      Push({WatchUpdate::Kind::kReconnecting, {}, status});
    }
    clock_.SleepFor(backoff);
    backoff = std::min(backoff * 2, options_.max_backoff);
  }
}

}  // namespace latentforge::client

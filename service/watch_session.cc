#include "service/watch_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/job_name.h"
#include "service/time_util.h"

namespace latentforge::service {
namespace {

// What a watch that stands still holds at most of its own.
constexpr int kBatch = 64;

absl::StatusOr<int64_t> StartAfter(const v1::WatchJobRequest& request, int64_t last) {
  if (!request.has_from_sequence()) return last;
  if (request.from_sequence() < 0) {
    return MakeFieldError(
        kInvalidField,
        {{"from_sequence", absl::StrCat("is ", request.from_sequence(), ", expected 0 or more")}});
  }
  if (request.from_sequence() > last) {
    return MakeFieldError(
        "SEQUENCE_AHEAD",
        {{"from_sequence", absl::StrCat("is ", request.from_sequence(), ", expected at most ", last,
                                        ", the last event of ", request.name())}},
        {{"from_sequence", absl::StrCat(request.from_sequence())},
         {"last_sequence", absl::StrCat(last)}},
        absl::StatusCode::kOutOfRange);
  }
  return request.from_sequence();
}

}  // namespace

absl::StatusOr<std::unique_ptr<WatchSession>> WatchSession::Start(
    const Identity& caller, Store& store, WatchHub& hub, const v1::WatchJobRequest& request,
    std::function<void()> notify) {
  LF_ASSIGN_OR_RETURN(std::string id, ParseJobName(request.name()));
  std::unique_ptr<WatchSession> session(new WatchSession(store, id));
  // Subscribed before the row is read: no event falls between the two.
  session->subscription_ = hub.Subscribe(id, std::move(notify));
  LF_ASSIGN_OR_RETURN(session->snapshot_, store.Get(id));
  if (!caller.Sees(session->snapshot_->tenant)) return JobNotFoundError(id);
  session->known_ = session->snapshot_->job.last_sequence();
  LF_ASSIGN_OR_RETURN(session->cursor_, StartAfter(request, session->known_));
  if (session->cursor_ < session->known_) LF_RETURN_IF_ERROR(session->CheckKept());
  return session;
}

v1::WatchJobResponse WatchSession::TakeSnapshot() {
  v1::WatchJobResponse response;
  *response.mutable_snapshot()->mutable_job() = snapshot_->job;
  response.mutable_snapshot()->set_sequence(snapshot_->job.last_sequence());
  finished_ = IsTerminal(snapshot_->job.status().state()) && cursor_ >= known_;
  snapshot_.reset();
  return response;
}

absl::Status WatchSession::CheckKept() {
  LF_ASSIGN_OR_RETURN(const int64_t compacted, store_.CompactedThrough(id_));
  if (cursor_ >= compacted) return absl::OkStatus();
  const std::string oldest = absl::StrCat(compacted + 1);
  return MakeFieldError(
      kSequenceCompacted,
      {{"from_sequence", absl::StrCat("is ", cursor_, ", expected at least ", compacted,
                                      ": the oldest event that is kept is ", oldest)}},
      {{"from_sequence", absl::StrCat(cursor_)}, {"oldest_sequence", oldest}},
      absl::StatusCode::kOutOfRange);
}

absl::Status WatchSession::Refill() {
  for (const auto& event : subscription_->Take()) {
    const int64_t expected = 1 + (pending_.empty() ? cursor_ : pending_.back()->sequence());
    if (event->sequence() == expected) pending_.push_back(event);
    known_ = std::max(known_, event->sequence());
  }
  if (!pending_.empty() || known_ <= cursor_) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(std::vector<v1::JobEvent> events, store_.Events(id_, cursor_, kBatch));
  // Nothing else makes a gap.
  const int64_t last = cursor_ + static_cast<int64_t>(events.size());
  if (events.empty() || events.back().sequence() != last) LF_RETURN_IF_ERROR(CheckKept());
  for (v1::JobEvent& event : events)
    pending_.push_back(std::make_shared<const v1::JobEvent>(std::move(event)));
  return absl::OkStatus();
}

absl::StatusOr<std::optional<v1::WatchJobResponse>> WatchSession::Next() {
  if (snapshot_.has_value()) return TakeSnapshot();
  if (finished_) return std::nullopt;
  if (pending_.empty()) LF_RETURN_IF_ERROR(Refill());
  if (pending_.empty()) return std::nullopt;
  v1::WatchJobResponse response;
  *response.mutable_event() = *pending_.front();
  pending_.pop_front();
  cursor_ = response.event().sequence();
  // A job that was retried has ends in the middle of its history.
  finished_ = response.event().has_state_changed() &&
              IsTerminal(response.event().state_changed().state()) && cursor_ >= known_;
  return response;
}

v1::WatchJobResponse WatchSession::MakeBookmark(absl::Time now) const {
  v1::WatchJobResponse response;
  response.mutable_bookmark()->set_sequence(cursor_);
  *response.mutable_bookmark()->mutable_time() = ToProto(now);
  return response;
}

}  // namespace latentforge::service

// What one watcher is to be sent: snapshot, then every event, without gaps.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "latentforge/v1/job_service.pb.h"
#include "service/auth/identity.h"
#include "service/store/store.h"
#include "service/stream_source.h"
#include "service/watch_hub.h"

namespace latentforge::service {

// A cursor over one job's events, fed by the hub and, where the hub's ring was too
// short, by the store. Not safe for concurrent use. Borrows store and hub.
class WatchSession final : public StreamSource<v1::WatchJobResponse> {
 public:
  // `notify` is called as WatchHub::Subscribe says. NotFound JOB_NOT_FOUND,
  // InvalidArgument for a bad name or a negative sequence, OutOfRange
  // SEQUENCE_AHEAD for a sequence that the job has not reached, SEQUENCE_COMPACTED for
  // one after which events were removed; that may also happen in the middle of a slow watch.
  static absl::StatusOr<std::unique_ptr<WatchSession>> Start(const Identity& caller, Store& store,
                                                             WatchHub& hub,
                                                             const v1::WatchJobRequest& request,
                                                             std::function<void()> notify);

  absl::StatusOr<std::optional<v1::WatchJobResponse>> Next() override;

  // After a terminal state that nothing follows.
  bool finished() const override { return finished_; }

  v1::WatchJobResponse MakeBookmark(absl::Time now) const override;

 private:
  WatchSession(Store& store, std::string id) : store_(store), id_(std::move(id)) {}

  v1::WatchJobResponse TakeSnapshot();
  absl::Status Refill();
  // Every event after cursor_ is there.
  absl::Status CheckKept();

  Store& store_;
  const std::string id_;
  std::unique_ptr<WatchHub::Subscription> subscription_;
  std::optional<JobRecord> snapshot_;  // until it was returned
  int64_t cursor_ = 0;                 // sequence of the last event returned
  int64_t known_ = 0;                  // highest sequence known to exist
  // Follows cursor_ without a gap; what came from the hub is shared with other watches.
  std::deque<std::shared_ptr<const v1::JobEvent>> pending_;
  bool finished_ = false;
};

}  // namespace latentforge::service

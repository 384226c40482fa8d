// What the server tells its metrics, without knowing them.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "service/job_state.h"
#include "service/log_record.h"

namespace latentforge::service {

// Does nothing unless overridden. Implementations are safe for concurrent use and
// fast: they are called on the paths that they observe.
class Observer {
 public:
  virtual ~Observer() = default;

  virtual void JobSubmitted() {}
  virtual void SubmitDeduplicated() {}
  virtual void SubmitRejected(absl::string_view /*reason*/) {}
  // After the transition is on disk.
  virtual void Transitioned(const JobRecord& /*before*/, const Transition& /*transition*/) {}
  virtual void LeaseRenewed() {}
  // A call came with a lease that is over.
  virtual void FencedWrite(absl::string_view /*operation*/) {}

  // Lines are on disk, or an append was refused because of others.
  virtual void LogsAppended(const LogAppended& /*appended*/) {}
  virtual void LogsRefused() {}

  virtual void WatchOpened(bool /*resumed*/) {}
  virtual void WatchClosed(absl::string_view /*reason*/) {}
  virtual void WatchSent(absl::string_view /*type*/) {}

  virtual void RpcStarted(absl::string_view /*service*/, absl::string_view /*method*/) {}
  virtual void RpcHandled(absl::string_view /*service*/, absl::string_view /*method*/,
                          const absl::Status& /*status*/, absl::Duration /*duration*/) {}
  // A call was turned away because of who made it.
  virtual void CallRefused(absl::string_view /*reason*/) {}
};

}  // namespace latentforge::service

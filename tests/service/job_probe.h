// Holds answers of the API and the jobs of a store against what is promised, whatever the calls.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "service/store/store.h"

namespace latentforge::service {

// Ends the process with a message where something is not as promised: for fuzzers, which keep the
// input then. Not safe for concurrent use. Borrows the store.
class JobProbe {
 public:
  explicit JobProbe(Store& store);

  // An error has a reason of docs/errors.md, and none is the server's own.
  void Check(const absl::Status& status) const;
  template <typename T>
  void Check(const absl::StatusOr<T>& answer) const {
    Check(answer.status());
  }

  // The next call may take back the end of this job; may delete it, or any.
  void AllowRetry(const std::string& job) { retryable_ = job; }
  void AllowDeletion(const std::string& job = "") { deletable_ = job; }

  // After each call: versions, epochs and sequences rise, and an end stays.
  void LookAtJobs();

  // At the end: `expire` passes more time than a lease lasts. Then nobody holds a lease, and every
  // log is dense and ends as its job.
  void Finish(const std::function<void()>& expire);

  // Of "jobs/{id}"; empty without one.
  std::string EtagOf(const std::string& job) const;

 private:
  void Compare(const JobRecord& before, const JobRecord& now) const;
  void CheckLog(const JobRecord& record);

  Store& store_;
  const std::set<std::string>& reasons_;
  std::map<std::string, JobRecord> seen_;  // by name
  std::string retryable_;
  std::optional<std::string> deletable_;
};

}  // namespace latentforge::service

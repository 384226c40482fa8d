#include "tests/service/job_probe.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/rpc/error_details.pb.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

void Require(bool holds, const std::string& what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what.c_str());
  abort();
}

// The first column of the tables of docs/errors.md.
std::set<std::string> ReadReasons() {
  std::set<std::string> reasons;
  std::ifstream file(LATENTFORGE_SOURCE_DIR "/docs/errors.md");
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, '`');
    if (parts.size() > 2 && parts[0] == "| ") reasons.insert(parts[1]);
  }
  Require(!reasons.empty(), "there are no reasons in docs/errors.md");
  return reasons;
}

const std::set<std::string>& Reasons() {
  static const std::set<std::string> reasons = ReadReasons();
  return reasons;
}

}  // namespace

JobProbe::JobProbe(Store& store) : store_(store), reasons_(Reasons()) {}

void JobProbe::Check(const absl::Status& status) const {
  if (status.ok()) return;
  Require(reasons_.contains(ReasonOf(status)),
          absl::StrCat("an error without a reason of the catalogue: ", status.ToString()));
  const auto rpc = ToRpcStatus(status);
  google::rpc::Status received;
  google::rpc::ErrorInfo info;
  int infos = 0;
  Require(received.ParseFromString(rpc.SerializeAsString()), "an error that cannot be read");
  for (const auto& any : received.details()) infos += any.UnpackTo(&info) ? 1 : 0;
  Require(infos == 1, absl::StrCat("an error with ", infos, " ErrorInfo: ", status.ToString()));
  Require(rpc.code() != static_cast<int>(absl::StatusCode::kInternal) &&
              rpc.code() != static_cast<int>(absl::StatusCode::kUnknown),
          absl::StrCat("an error of the server's own: ", status.ToString()));
}

void JobProbe::LookAtJobs() {
  const auto records = store_.List(JobQuery());
  Check(records);
  std::map<std::string, JobRecord> now;
  for (const JobRecord& record : *records) now[record.job.name()] = record;
  for (const auto& [name, before] : seen_) {
    const auto found = now.find(name);
    if (found != now.end()) {
      Compare(before, found->second);
      continue;
    }
    Require(IsTerminal(before.job.status().state()) && deletable_.has_value() &&
                (deletable_->empty() || *deletable_ == name),
            absl::StrCat(name, " is gone"));
  }
  seen_ = std::move(now);
  retryable_.clear();
  deletable_.reset();
}

void JobProbe::Compare(const JobRecord& before, const JobRecord& now) const {
  const std::string& name = before.job.name();
  const v1::JobStatus& was = before.job.status();
  const v1::JobStatus& is = now.job.status();
  Require(now.version >= before.version, absl::StrCat("the version of ", name, " fell"));
  if (now.version == before.version) {
    Require(now.job.SerializeAsString() == before.job.SerializeAsString(),
            absl::StrCat(name, " changed within a version"));
    return;
  }
  Require(now.lease_epoch >= before.lease_epoch, absl::StrCat("the epoch of ", name, " fell"));
  Require(is.attempt() >= was.attempt(), absl::StrCat("the attempt of ", name, " fell"));
  Require(is.attempt() <= is.max_attempts(),
          absl::StrCat(name, " has attempt ", is.attempt(), " of ", is.max_attempts()));
  Require(now.job.last_sequence() >= before.job.last_sequence(),
          absl::StrCat("the sequence of ", name, " fell"));
  Require(v1::JobState_IsValid(is.state()) && is.state() != v1::JOB_STATE_UNSPECIFIED,
          absl::StrCat(name, " has the state ", is.state()));
  Require(!IsTerminal(was.state()) || retryable_ == name ||
              (is.state() == was.state() && now.job.last_sequence() == before.job.last_sequence()),
          absl::StrCat(name, " was ", v1::JobState_Name(was.state()), " and is ",
                       v1::JobState_Name(is.state())));
  Require(IsTerminal(is.state()) == now.job.has_end_time(),
          absl::StrCat(name, " has state and end apart"));
}

void JobProbe::CheckLog(const JobRecord& record) {
  const auto events = store_.Events(record.id, 0, std::numeric_limits<int>::max());
  Check(events);
  int64_t sequence = 0;
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
  for (const v1::JobEvent& event : *events) {
    Require(event.sequence() == ++sequence, absl::StrCat("the log of ", record.id, " has a gap"));
    if (event.has_state_changed()) state = event.state_changed().state();
  }
  Require(sequence == record.job.last_sequence() && state == record.job.status().state(),
          absl::StrCat("the log of ", record.id, " does not end as the job"));
}

void JobProbe::Finish(const std::function<void()>& expire) {
  // At the first time a worker that still waits may get a job.
  for (int i = 0; i < 2; ++i) expire();
  LookAtJobs();
  for (const auto& [name, record] : seen_) {
    Require(!HoldsLease(record.job.status().state()),
            absl::StrCat(name, " is ", v1::JobState_Name(record.job.status().state()),
                         " for ever without a worker"));
    CheckLog(record);
  }
}

std::string JobProbe::EtagOf(const std::string& job) const {
  const auto found = seen_.find(job);
  return found == seen_.end() ? "" : found->second.job.etag();
}

}  // namespace latentforge::service

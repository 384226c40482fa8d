#include "tests/faults/checker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace latentforge::faults {
namespace {

bool IsTerminal(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

absl::Time TimeOf(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

class Checker {
 public:
  Checker(const History& history, const Bounds& bounds) : history_(history), bounds_(bounds) {}

  std::vector<Violation> Run() && {
    CheckSubmits();
    CheckJobCount();
    for (const auto& [name, job] : history_.jobs) {
      CheckEnd(name, job);
      CheckPublication(name, job);
      CheckLog(name, job);
      CheckCancel(name, job);
    }
    for (const Watched& watched : history_.watches) CheckWatch(watched);
    for (const auto& [tenant, names] : history_.seen) CheckTenant(tenant, names);
    for (const std::string& job : history_.torn_artifacts) {
      Add('f', absl::StrCat("the artifact of ", job, " is not whole"));
    }
    return std::move(violations_);
  }

 private:
  void Add(char promise, std::string what) { violations_.push_back({promise, std::move(what)}); }

  // (a) an acknowledged job is never lost, (b) a request makes at most one job.
  void CheckSubmits() {
    for (const auto& [request, names] : history_.submits) {
      if (names.size() > 1) {
        Add('b', absl::StrCat(request, " made ", absl::StrJoin(names, " and ")));
      }
      for (const std::string& name : names) {
        if (!history_.jobs.contains(name)) Add('a', absl::StrCat(name, " is lost"));
      }
    }
  }

  // A request without an answer may have made a job, but not two.
  void CheckJobCount() {
    const auto requests = history_.submits.size();
    if (history_.jobs.size() > requests) {
      Add('b', absl::StrCat(history_.jobs.size(), " jobs from ", requests, " requests"));
    }
  }

  // Every job ends when nothing disturbs it.
  void CheckEnd(const std::string& name, const v1::Job& job) {
    if (!IsTerminal(job.status().state())) {
      Add('c', absl::StrCat(name, " is ", v1::JobState_Name(job.status().state()),
                            " when all is quiet"));
    }
  }

  // (c) publication is exactly once.
  void CheckPublication(const std::string& name, const v1::Job& job) {
    const auto found = history_.publications.find(name);
    const size_t count = found == history_.publications.end() ? 0 : found->second.size();
    if (count > 1) {
      Add('c', absl::StrCat(name, " was published by ", absl::StrJoin(found->second, " and ")));
    }
    if (count == 0 && job.status().state() == v1::JOB_STATE_SUCCEEDED) {
      Add('c', absl::StrCat(name, " succeeded and was never published"));
    }
  }

  // (d) terminal states never change, (e) sequences are dense.
  void CheckLog(const std::string& name, const v1::Job& job) {
    const auto found = history_.logs.find(name);
    if (found == history_.logs.end()) return Add('e', absl::StrCat(name, " has no log"));
    const std::vector<v1::JobEvent>& log = found->second;
    std::string terminal;
    for (size_t i = 0; i < log.size(); ++i) {
      if (log[i].sequence() != static_cast<int64_t>(i) + 1) {
        return Add('e', absl::StrCat(name, " has event ", log[i].sequence(), " in place ", i + 1));
      }
      if (!terminal.empty()) {
        return Add('d', absl::StrCat(name, " has event ", i + 1, " after it was ", terminal));
      }
      if (log[i].has_state_changed() && IsTerminal(log[i].state_changed().state())) {
        terminal = v1::JobState_Name(log[i].state_changed().state());
      }
    }
    if (static_cast<int64_t>(log.size()) != job.last_sequence()) {
      Add('e', absl::StrCat(name, " has ", log.size(), " events and says ", job.last_sequence()));
    }
    const std::string state = v1::JobState_Name(job.status().state());
    if (IsTerminal(job.status().state()) && terminal != state) {
      Add('d', absl::StrCat(name, " is ", state, ", its log says \"", terminal, "\""));
    }
  }

  // (e) a watch gets each event once, in order, and as it stays in the log.
  void CheckWatch(const Watched& watched) {
    const auto log = history_.logs.find(watched.job);
    int64_t expected = watched.from_sequence;
    for (const v1::JobEvent& event : watched.events) {
      if (event.sequence() != ++expected) {
        return Add('e', absl::StrCat("a watch of ", watched.job, " got event ", event.sequence(),
                                     " instead of ", expected));
      }
      const auto place = static_cast<size_t>(expected) - 1;
      const bool same = log != history_.logs.end() && place < log->second.size() &&
                        log->second[place].SerializeAsString() == event.SerializeAsString();
      if (!same) {
        return Add('e', absl::StrCat("event ", expected, " of ", watched.job,
                                     " is not what a watch was told"));
      }
    }
    const auto job = history_.jobs.find(watched.job);
    if (watched.at_end && job != history_.jobs.end() &&
        job->second.status().state() != *watched.at_end) {
      Add('d',
          absl::StrCat("a watch saw ", watched.job, " end as ", v1::JobState_Name(*watched.at_end),
                       ", it is ", v1::JobState_Name(job->second.status().state())));
    }
  }

  // (g) no tenant sees a job of another.
  void CheckTenant(const std::string& tenant, const std::set<std::string>& names) {
    for (const std::string& name : names) {
      const auto job = history_.jobs.find(name);
      if (job == history_.jobs.end() || job->second.tenant() == tenant) continue;
      Add('g', absl::StrCat("tenant ", tenant, " saw ", name, " of tenant ", job->second.tenant()));
    }
  }

  // (h) a cancellation ends a job in bounded time.
  void CheckCancel(const std::string& name, const v1::Job& job) {
    const auto found = history_.cancels.find(name);
    if (found == history_.cancels.end() || !job.has_end_time()) return;
    const absl::Duration took = TimeOf(job.end_time()) - found->second;
    if (took > bounds_.cancel) {
      Add('h',
          absl::StrCat(name, " ended ", absl::FormatDuration(took), " after its cancellation"));
    }
  }

  const History& history_;
  const Bounds& bounds_;
  std::vector<Violation> violations_;
};

}  // namespace

std::vector<Violation> Check(const History& history, const Bounds& bounds) {
  return Checker(history, bounds).Run();
}

}  // namespace latentforge::faults

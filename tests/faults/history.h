// What happened during a run with faults, as clients, the store and the disk saw it. Plain values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "latentforge/v1/job.pb.h"

namespace latentforge::faults {

// One watch of one job, over all its reconnections.
struct Watched {
  std::string job;
  int64_t from_sequence = 0;           // it asked for the events after this one
  std::vector<v1::JobEvent> events;    // as they came
  std::optional<v1::JobState> at_end;  // the terminal state after which the server ended it
};

struct History {
  // Every request_id that was sent, and the jobs that answers to it named.
  std::map<std::string, std::set<std::string>> submits;
  // When each cancellation was acknowledged, by job; the first.
  std::map<std::string, absl::Time> cancels;
  std::vector<Watched> watches;
  // Every job that an answer, list or watch named to a tenant's clients.
  std::map<std::string, std::set<std::string>> seen;
  // At the end, when all is quiet: every job, and its whole log of events.
  std::map<std::string, v1::Job> jobs;
  std::map<std::string, std::vector<v1::JobEvent>> logs;
  // Which attempts of which compute process published an artifact, by job.
  std::map<std::string, std::vector<std::string>> publications;
  // Artifacts that are there but not whole, by job.
  std::set<std::string> torn_artifacts;
};

}  // namespace latentforge::faults

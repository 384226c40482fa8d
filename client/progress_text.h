// What progress looks like as text: pure functions from jobs and events.
#pragma once

#include <string>
#include <vector>

#include "latentforge/v1/job.pb.h"

namespace latentforge::client {

// "calibrating", "queued", "original": words of the API for people.
std::string PhaseText(v1::Phase phase);
std::string StateText(v1::JobState state);
std::string PerplexityText(const v1::Perplexity& perplexity);

struct FrameStyle {
  int columns = 80;
  bool color = false;
  bool unicode = false;
  double eta_seconds = -1;  // negative: unknown
};

// The lines of the live display, without line ends, none wider than the columns.
std::vector<std::string> BuildFrame(const v1::Job& job, const FrameStyle& style);

// "calibrating 43 %, 1,234 tokens/s, ETA 3m 12s, layer 13 of 30", for plain output.
std::string ProgressLine(const v1::Job& job);

// The line that an event leaves in the record: changes of state, ends of phases,
// resumed phases, final perplexities, messages. Empty for other events.
// `max_attempts` is the job's.
std::string EventLine(const v1::JobEvent& event, int max_attempts);

}  // namespace latentforge::client

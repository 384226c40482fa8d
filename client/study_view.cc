#include "client/study_view.h"

#include <numeric>

#include "absl/strings/str_cat.h"

namespace latentforge::client {
namespace {

// Whether a record of many cells wants it.
bool IsWorthALine(const v1::JobEvent& event) {
  switch (event.kind_case()) {
    case v1::JobEvent::kStateChanged:
      return event.state_changed().has_error() &&
             event.state_changed().state() == v1::JOB_STATE_QUEUED;
    case v1::JobEvent::kLog:
      return event.log().severity() != v1::LogLine::SEVERITY_INFO;
    case v1::JobEvent::kPerplexity:
      return event.perplexity().windows_done() < event.perplexity().windows_total();
    case v1::JobEvent::kPhaseStarted:
      return !event.phase_started().resumed();
    case v1::JobEvent::kProgress:
      return true;
    default:
      return false;
  }
}

}  // namespace

void StudyView::Show(const v1::Job& job, const v1::JobEvent* event) {
  if (event != nullptr && !IsWorthALine(*event)) return;
  v1::Job placed = job;
  const std::string& detail = job.status().detail();
  placed.mutable_status()->set_detail(detail.empty() ? place_ : absl::StrCat(place_, ", ", detail));
  view_.Show(placed, event);
}

double SecondsLeft(const std::vector<double>& ended, size_t left) {
  if (ended.empty()) return -1;
  const auto first = ended.size() > 1 ? ended.begin() + 1 : ended.begin();
  const double sum = std::accumulate(first, ended.end(), 0.0);
  return sum / static_cast<double>(ended.end() - first) * static_cast<double>(left);
}

}  // namespace latentforge::client

// The progress of a study: that of a cell's job, with the cell's place among the others.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "client/progress_view.h"

namespace latentforge::client {

// Shows a job in another view with `place` before what it is doing; of the record only warnings,
// failures and repeated attempts. Borrows the view, whose Finish it calls. Not safe for concurrent
// use.
class StudyView : public ProgressView {
 public:
  // "cell 3 of 40, RootCov at 20 %, 12m 05s left in all".
  StudyView(ProgressView& view, std::string place) : view_(view), place_(std::move(place)) {}

  void Show(const v1::Job& job, const v1::JobEvent* event) override;
  void Notice(absl::string_view line) override { view_.Notice(line); }
  void Tick() override { view_.Tick(); }
  void Finish() override { view_.Finish(); }

 private:
  ProgressView& view_;
  const std::string place_;
};

// How long the cells that are left take, by the seconds of those that this run has ended: the first
// calibrates and measures the original for all, so that it counts only where it is the only one.
// Negative where nothing is known.
double SecondsLeft(const std::vector<double>& ended, size_t left);

}  // namespace latentforge::client

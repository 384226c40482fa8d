// Reads the events that a compute process prints, strictly.
#pragma once

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "latentforge/v1/event.pb.h"
#include "worker/agent/line_splitter.h"

namespace latentforge::agent {

inline constexpr size_t kMaxEventLineBytes = size_t{1} << 20;

// One line as an event: proto3 JSON without unknown fields, duplicate keys or
// invalid UTF-8, with a kind. InvalidArgument names the cause.
absl::StatusOr<v1::AttemptEvent> ParseAttemptEvent(absl::string_view line);

// Turns bytes into events and holds the rules of the stream: sequences 1, 2, 3…,
// nothing after `result` or `error`, every line ended. Not safe for concurrent
// use. The first error is final; it names the line's number and beginning.
class EventReader {
 public:
  using Sink = absl::FunctionRef<absl::Status(v1::AttemptEvent event)>;

  EventReader() : splitter_(kMaxEventLineBytes) {}

  absl::Status Feed(absl::string_view bytes, Sink sink);
  // Call at the end of the stream.
  absl::Status Finish();

 private:
  absl::Status Line(absl::string_view line, bool truncated, Sink sink);
  absl::StatusOr<v1::AttemptEvent> Check(absl::string_view line, bool truncated) const;

  LineSplitter splitter_;
  absl::Status status_;
  int64_t lines_ = 0;
  int64_t last_sequence_ = 0;
  bool ended_ = false;
};

}  // namespace latentforge::agent

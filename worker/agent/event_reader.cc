#include "worker/agent/event_reader.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "google/protobuf/util/json_util.h"
#include "worker/agent/stderr_tail.h"

namespace latentforge::agent {
namespace {

constexpr size_t kQuotedBytes = 120;

std::string Quoted(absl::string_view line) {
  return absl::StrCat("\"", PrintableText(line.substr(0, kQuotedBytes)),
                      line.size() > kQuotedBytes ? "\"..." : "\"");
}

}  // namespace

absl::StatusOr<v1::AttemptEvent> ParseAttemptEvent(absl::string_view line) {
  LF_RETURN_IF_ERROR(ParseJson(line, {.max_depth = 32}).status());
  v1::AttemptEvent event;
  const auto status = google::protobuf::util::JsonStringToMessage(std::string(line), &event);
  if (!status.ok()) return absl::InvalidArgumentError(PrintableText(status.ToString()));
  if (event.kind_case() == v1::AttemptEvent::KIND_NOT_SET) {
    return absl::InvalidArgumentError("the event has no kind");
  }
  return event;
}

absl::StatusOr<v1::AttemptEvent> EventReader::Check(absl::string_view line, bool truncated) const {
  if (ended_) return absl::InvalidArgumentError("it comes after the last event");
  if (truncated) {
    return absl::InvalidArgumentError(
        absl::StrCat("it is longer than ", kMaxEventLineBytes, " bytes"));
  }
  LF_ASSIGN_OR_RETURN(v1::AttemptEvent event, ParseAttemptEvent(line));
  if (event.sequence() != last_sequence_ + 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("its sequence is ", event.sequence(), ", expected ", last_sequence_ + 1));
  }
  return event;
}

absl::Status EventReader::Line(absl::string_view line, bool truncated, Sink sink) {
  ++lines_;
  absl::StatusOr<v1::AttemptEvent> event = Check(line, truncated);
  if (!event.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("line ", lines_, " of the compute process, ",
                                                   Quoted(line),
                                                   ", is no event: ", event.status().message()));
  }
  last_sequence_ = event->sequence();
  ended_ = event->has_result() || event->has_error();
  return sink(*std::move(event));
}

absl::Status EventReader::Feed(absl::string_view bytes, Sink sink) {
  LF_RETURN_IF_ERROR(status_);
  status_ = splitter_.Feed(
      bytes, [&](absl::string_view line, bool truncated) { return Line(line, truncated, sink); });
  return status_;
}

absl::Status EventReader::Finish() {
  LF_RETURN_IF_ERROR(status_);
  status_ = splitter_.Finish([&](absl::string_view line, bool) {
    return absl::InvalidArgumentError(absl::StrCat("line ", lines_ + 1, " of the compute process, ",
                                                   Quoted(line), ", has no end"));
  });
  return status_;
}

}  // namespace latentforge::agent

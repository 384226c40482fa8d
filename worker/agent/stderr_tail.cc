#include "worker/agent/stderr_tail.h"

#include "base/json.h"

namespace latentforge::agent {

std::string PrintableText(absl::string_view text) {
  // The writer replaces what is not UTF-8; reading back undoes only its escapes.
  const absl::StatusOr<Json> clean = ParseJson(WriteJson(Json(std::string(text))));
  std::string printable = clean.ok() ? clean->get<std::string>() : std::string();
  for (char& c : printable) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return printable;
}

void StderrTail::Keep(absl::string_view line, bool truncated, Each each) {
  std::string text = PrintableText(line.substr(0, max_kept_bytes_));
  if (truncated || line.size() > max_kept_bytes_) text += " [...]";
  each({line, truncated, text});
  lines_.push_back(std::move(text));
  if (lines_.size() > max_lines_) lines_.pop_front();
}

void StderrTail::Feed(absl::string_view bytes, Each each) {
  // The sink never fails.
  splitter_
      .Feed(bytes,
            [&](absl::string_view line, bool truncated) {
              Keep(line, truncated, each);
              return absl::OkStatus();
            })
      .IgnoreError();
}

void StderrTail::Finish(Each each) {
  // The sink never fails.
  splitter_
      .Finish([&](absl::string_view line, bool truncated) {
        Keep(line, truncated, each);
        return absl::OkStatus();
      })
      .IgnoreError();
}

}  // namespace latentforge::agent

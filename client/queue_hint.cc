#include "client/queue_hint.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/queue_reason_words.h"
#include "client/result_table.h"
#include "client/text_format.h"

namespace latentforge::client {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(10);

}  // namespace

QueueHint::QueueHint(std::string address, const Clock& clock, GetJob get)
    : address_(std::move(address)), clock_(clock), get_(std::move(get)) {}

std::optional<std::string> QueueHint::Next(const v1::Job& job) {
  if (job.status().state() != v1::JOB_STATE_QUEUED) {
    next_look_.reset();
    said_ = false;
    return std::nullopt;
  }
  const absl::Duration now = clock_.Monotonic();
  if (!next_look_.has_value()) next_look_ = now + kPatience;
  if (said_ || now < *next_look_) return std::nullopt;
  next_look_ = now + kPatience;
  const absl::StatusOr<v1::Job> seen = get_();
  // The watch itself tells of a server that is away.
  const std::string reason = seen.ok() ? Printable(seen->status().queue_reason()) : "";
  if (reason.empty()) return std::nullopt;
  said_ = true;
  const std::string server = absl::StrCat(" --server ", ShellWord(address_));
  if (absl::StartsWith(reason, kTenantLimitReason)) {
    return absl::StrCat(reason, ", so the job waits until one ends  (latentforge job list", server,
                        " lists them)");
  }
  return absl::StrCat(reason, ", so the job waits; start a worker for it: latentforge-worker",
                      server, "  (latentforge worker list", server, " lists them)");
}

}  // namespace latentforge::client

#include "service/log_looks.h"

#include <functional>
#include <numeric>
#include <utility>

#include "base/status_macros.h"

namespace latentforge::service {
namespace {

// An append that was admitted just before its attempt ended has been written by then.
constexpr absl::Duration kSettled = absl::Seconds(2);
// Followers are at the end of a log, a second's lines behind: more is not kept for others.
constexpr size_t kMaxKeptBytes = size_t{64} << 10;
constexpr size_t kMaxKeptAShard = 16;

size_t TextBytes(const LogLook& look) {
  return std::accumulate(
      look.lines.begin(), look.lines.end(), size_t{0},
      [](size_t bytes, const LogRecord& line) { return bytes + line.text.size(); });
}

}  // namespace

absl::StatusOr<bool> LogLooks::HasEnded(const LogPlace& place) {
  if (place.attempt == 0) return true;
  LF_ASSIGN_OR_RETURN(const std::vector<AttemptRecord> found,
                      store_.Attempts(place.job, place.attempt - 1, 1));
  if (found.empty() || found.front().number != place.attempt) return false;
  if (found.front().outcome == AttemptOutcome::kRunning) return false;
  return clock_.Now() - found.front().end_time >= kSettled;
}

absl::StatusOr<std::shared_ptr<const LogLook>> LogLooks::Read(const LogPlace& place) {
  auto look = std::make_shared<LogLook>();
  // Before the lines are read: what an ended attempt has then is all that it will have.
  LF_ASSIGN_OR_RETURN(look->ended, HasEnded(place));
  LF_ASSIGN_OR_RETURN(look->lines, store_.Logs({.job = place.job,
                                                .attempt = place.attempt,
                                                .after = place.after,
                                                .limit = LogLook::kLines}));
  if (!look->lines.empty()) return look;
  LF_ASSIGN_OR_RETURN(const std::vector<AttemptRecord> next,
                      store_.Attempts(place.job, place.attempt, 1));
  if (!next.empty()) {
    look->next_attempt = next.front().number;
  } else if (look->ended) {
    LF_ASSIGN_OR_RETURN(const JobRecord record, store_.Get(place.job));
    // One that began since the look above is the next thing to read.
    look->job_ended =
        IsTerminal(record.job.status().state()) && record.job.status().attempt() <= place.attempt;
  }
  return look;
}

void LogLooks::Keep(const LogPlace& place, std::shared_ptr<const LogLook> look, Shard& shard) {
  const absl::Duration now = clock_.Monotonic();
  std::erase_if(shard.kept, [now](const auto& kept) { return kept.second.until <= now; });
  const bool at_the_end = look->lines.size() < LogLook::kLines;
  if (!at_the_end || TextBytes(*look) > kMaxKeptBytes || shard.kept.size() >= kMaxKeptAShard)
    return;
  shard.kept[place] = {now + fresh_, std::move(look)};
}

absl::StatusOr<std::shared_ptr<const LogLook>> LogLooks::Share(const LogPlace& place) {
  Shard& shard = shards_[std::hash<std::string>()(place.job) % shards_.size()];
  absl::MutexLock lock(&shard.mutex);
  const auto found = shard.kept.find(place);
  if (found != shard.kept.end() && clock_.Monotonic() < found->second.until)
    return found->second.look;
  LF_ASSIGN_OR_RETURN(std::shared_ptr<const LogLook> look, Read(place));
  Keep(place, look, shard);
  return look;
}

}  // namespace latentforge::service

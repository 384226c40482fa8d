#include "service/log_looks.h"

#include <algorithm>
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
constexpr int kMaxKeptAShard = 16;

size_t TextBytes(const LogLook& look) {
  return std::accumulate(
      look.lines.begin(), look.lines.end(), size_t{0},
      [](size_t bytes, const LogRecord& line) { return bytes + line.text.size(); });
}

}  // namespace

absl::StatusOr<LogLook> LogLooks::LookAtAttempts(const LogPlace& place) {
  LogLook look;
  look.ended = place.attempt == 0;
  LF_ASSIGN_OR_RETURN(const std::vector<AttemptRecord> found,
                      store_.Attempts(place.job, place.attempt - 1, 2));
  for (const AttemptRecord& attempt : found) {
    if (attempt.number == place.attempt) {
      look.ended = attempt.outcome != AttemptOutcome::kRunning &&
                   clock_.Now() - attempt.end_time >= kSettled;
    } else if (look.next_attempt == 0) {
      look.next_attempt = attempt.number;
    }
  }
  return look;
}

absl::StatusOr<std::shared_ptr<const LogLook>> LogLooks::Read(const LogPlace& place) {
  // Before the lines are read: what an ended attempt has then is all that it will have.
  LF_ASSIGN_OR_RETURN(LogLook look, LookAtAttempts(place));
  LF_ASSIGN_OR_RETURN(look.lines, store_.Logs({.job = place.job,
                                               .attempt = place.attempt,
                                               .after = place.after,
                                               .limit = LogLook::kLines}));
  if (look.lines.empty() && look.ended && look.next_attempt == 0) {
    LF_ASSIGN_OR_RETURN(const JobRecord record, store_.Get(place.job));
    // One that began since the look above is the next thing to read.
    look.job_ended =
        IsTerminal(record.job.status().state()) && record.job.status().attempt() <= place.attempt;
  }
  return std::make_shared<const LogLook>(std::move(look));
}

void LogLooks::Finish(const LogPlace& place, Shared& shared,
                      absl::StatusOr<std::shared_ptr<const LogLook>> look, Shard& shard) {
  absl::MutexLock lock(&shard.mutex);
  const auto kept = std::count_if(shard.looks.begin(), shard.looks.end(),
                                  [](const auto& other) { return other.second->made; });
  const bool keep = look.ok() && (*look)->lines.size() < LogLook::kLines &&
                    TextBytes(**look) <= kMaxKeptBytes && kept < kMaxKeptAShard;
  if (!keep) shard.looks.erase(place);
  shared.look = std::move(look);
  shared.until = clock_.Monotonic() + fresh_;
  shared.made = true;
}

absl::StatusOr<std::shared_ptr<const LogLook>> LogLooks::Share(const LogPlace& place) {
  Shard& shard = shards_[std::hash<std::string>()(place.job) % shards_.size()];
  const auto mine = std::make_shared<Shared>();
  {
    absl::MutexLock lock(&shard.mutex);
    std::erase_if(shard.looks, [now = clock_.Monotonic()](const auto& other) {
      return other.second->made && other.second->until <= now;
    });
    const auto [found, first] = shard.looks.try_emplace(place, mine);
    if (!first) {
      const std::shared_ptr<Shared> theirs = found->second;
      shard.mutex.AwaitWithTimeout(absl::Condition(&theirs->made), absl::InfiniteDuration());
      return theirs->look;
    }
  }
  absl::StatusOr<std::shared_ptr<const LogLook>> look = Read(place);
  Finish(place, *mine, look, shard);
  return look;
}

}  // namespace latentforge::service

#include "service/store/sqlite_events.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/store/sqlite_rows.h"

namespace latentforge::service {
namespace {

absl::StatusOr<int64_t> CompactedOf(Database& db, int64_t ordinal) {
  LF_ASSIGN_OR_RETURN(Statement query,
                      db.Prepare("SELECT through FROM compactions WHERE ordinal = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, query.Bind(ordinal).Step());
  return found ? query.Int() : 0;
}

}  // namespace

absl::Status AppendEvents(Database& db, int64_t ordinal, const std::vector<v1::JobEvent>& events) {
  if (events.empty()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(Statement insert, db.Prepare("INSERT INTO events VALUES (?, ?, ?)"));
  for (const v1::JobEvent& event : events) {
    insert.Reset();
    LF_RETURN_IF_ERROR(
        insert.Bind(ordinal).Bind(event.sequence()).BindBlob(event.SerializeAsString()).Run());
  }
  return absl::OkStatus();
}

absl::Status RemoveEvents(Database& db, const EventCompaction& compaction) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(db, compaction.id));
  LF_ASSIGN_OR_RETURN(const int64_t compacted, CompactedOf(db, ordinal));
  if (compaction.through <= compacted) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(Statement remove,
                      db.Prepare("DELETE FROM events "
                                 "WHERE ordinal = ? AND sequence > ? AND sequence < ?"));
  int64_t after = compacted;
  const auto remove_until = [&](int64_t kept) {
    remove.Reset();
    const int64_t before = std::exchange(after, kept);
    return remove.Bind(ordinal).Bind(before).Bind(kept).Run();
  };
  for (const int64_t kept : compaction.keep) LF_RETURN_IF_ERROR(remove_until(kept));
  LF_RETURN_IF_ERROR(remove_until(compaction.through + 1));
  LF_ASSIGN_OR_RETURN(Statement note,
                      db.Prepare("INSERT OR REPLACE INTO compactions VALUES (?, ?)"));
  return note.Bind(ordinal).Bind(compaction.through).Run();
}

absl::StatusOr<std::vector<v1::JobEvent>> ReadEvents(Database& db, absl::string_view id,
                                                     int64_t after, int limit) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(db, id));
  LF_ASSIGN_OR_RETURN(Statement query,
                      db.Prepare("SELECT event FROM events WHERE ordinal = ? AND sequence > ? "
                                 "ORDER BY sequence LIMIT ?"));
  query.Bind(ordinal).Bind(after).Bind(int64_t{limit});
  std::vector<v1::JobEvent> events;
  while (true) {
    LF_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return events;
    if (!events.emplace_back().ParseFromString(query.Blob()))
      return absl::DataLossError(absl::StrCat("an event of job ", id, " is corrupt"));
  }
}

absl::StatusOr<int64_t> ReadCompactedThrough(Database& db, absl::string_view id) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(db, id));
  return CompactedOf(db, ordinal);
}

absl::StatusOr<std::vector<EventSpan>> ReadLongHistories(Database& db, int64_t events, int limit) {
  static_assert(kLeastLongHistory == 1000);  // what jobs_long holds, which the query has to repeat
  LF_ASSIGN_OR_RETURN(Statement query,
                      db.Prepare("SELECT id, coalesce(through, 0), last_sequence "
                                 "FROM jobs INDEXED BY jobs_long "
                                 "LEFT JOIN compactions USING (ordinal) "
                                 "WHERE last_sequence >= 1000 AND last_sequence > ?1 "
                                 "AND last_sequence - coalesce(through, 0) > ?1 LIMIT ?2"));
  query.Bind(events).Bind(int64_t{limit});
  std::vector<EventSpan> spans;
  while (true) {
    LF_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row) return spans;
    EventSpan& span = spans.emplace_back();
    span.id = query.Text();
    span.compacted = query.Int();
    span.last = query.Int();
  }
}

}  // namespace latentforge::service

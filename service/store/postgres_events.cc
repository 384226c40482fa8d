#include "service/store/postgres_events.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/store/postgres_writes.h"

namespace latentforge::service::postgres {
namespace {

absl::StatusOr<int64_t> CompactedOf(PgConnection& connection, int64_t ordinal) {
  LF_ASSIGN_OR_RETURN(PgRows rows,
                      connection.Run("SELECT through FROM compactions WHERE ordinal = $1",
                                     PgParams().Bind(ordinal)));
  return rows.Next() ? rows.Int() : 0;
}

}  // namespace

absl::Status AppendEvents(PgConnection& connection, int64_t ordinal,
                          const std::vector<v1::JobEvent>& events) {
  if (events.empty()) return absl::OkStatus();
  PgParams params;
  BindEvents(events, params.Bind(ordinal));
  return connection
      .RunKept("INSERT INTO events SELECT $1, * FROM unnest($2::bigint[], $3::bytea[])", params)
      .status();
}

void BindEvents(const std::vector<v1::JobEvent>& events, PgParams& params) {
  std::vector<int64_t> sequences;
  std::vector<std::string> bytes;
  for (const v1::JobEvent& event : events) {
    sequences.push_back(event.sequence());
    bytes.push_back(event.SerializeAsString());
  }
  params.BindInts(sequences).BindBlobs(bytes);
}

absl::Status RemoveEvents(PgConnection& connection, const EventCompaction& compaction) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(connection, compaction.id));
  LF_ASSIGN_OR_RETURN(int64_t after, CompactedOf(connection, ordinal));
  // First what is remembered: another server that compacts the same job waits here, and then
  // finds that there is nothing to do.
  LF_ASSIGN_OR_RETURN(
      const PgRows noted,
      connection.Run("INSERT INTO compactions VALUES ($1, $2) ON CONFLICT (ordinal) "
                     "DO UPDATE SET through = $2 WHERE compactions.through < $2",
                     PgParams().Bind(ordinal).Bind(compaction.through)));
  if (noted.count() == 0) return absl::OkStatus();
  const auto remove_until = [&](int64_t kept) {
    const int64_t before = std::exchange(after, kept);
    return connection
        .Run("DELETE FROM events WHERE ordinal = $1 AND sequence > $2 AND sequence < $3",
             PgParams().Bind(ordinal).Bind(before).Bind(kept))
        .status();
  };
  for (const int64_t kept : compaction.keep) LF_RETURN_IF_ERROR(remove_until(kept));
  return remove_until(compaction.through + 1);
}

absl::StatusOr<std::vector<v1::JobEvent>> ReadEvents(PgConnection& connection, absl::string_view id,
                                                     int64_t after, int limit) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(connection, id));
  LF_ASSIGN_OR_RETURN(
      PgRows rows, connection.Run("SELECT event FROM events WHERE ordinal = $1 AND sequence > $2 "
                                  "ORDER BY sequence LIMIT $3",
                                  PgParams().Bind(ordinal).Bind(after).Bind(int64_t{limit})));
  std::vector<v1::JobEvent> events;
  while (rows.Next()) {
    if (!events.emplace_back().ParseFromString(rows.Blob()))
      return absl::DataLossError(absl::StrCat("an event of job ", id, " is corrupt"));
  }
  return events;
}

absl::StatusOr<int64_t> ReadCompactedThrough(PgConnection& connection, absl::string_view id) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(connection, id));
  return CompactedOf(connection, ordinal);
}

absl::StatusOr<std::vector<EventSpan>> ReadLongHistories(PgConnection& connection, int64_t events,
                                                         int limit) {
  static_assert(kLeastLongHistory == 1000);  // job_states_long holds them by the thousands
  LF_ASSIGN_OR_RETURN(
      PgRows rows,
      connection.Run("SELECT id, coalesce(through, 0), last_sequence FROM jobs "
                     "JOIN job_states USING (ordinal) LEFT JOIN compactions USING (ordinal) "
                     "WHERE thousands > 0 AND thousands >= $1 / 1000 "
                     "AND last_sequence - coalesce(through, 0) > $1 LIMIT $2",
                     PgParams().Bind(events).Bind(int64_t{limit})));
  std::vector<EventSpan> spans;
  while (rows.Next()) {
    EventSpan& span = spans.emplace_back();
    span.id = rows.Text();
    span.compacted = rows.Int();
    span.last = rows.Int();
  }
  return spans;
}

}  // namespace latentforge::service::postgres

#include "service/store/postgres_logs.h"

#include <optional>
#include <string>
#include <vector>

#include "base/status_macros.h"
#include "service/store/log_lines.h"
#include "service/store/postgres_writes.h"

namespace latentforge::service::postgres {
namespace {

PgParams OfAttempt(int64_t ordinal, int32_t attempt) {
  return PgParams().Bind(ordinal).Bind(int64_t{attempt});
}

absl::StatusOr<LogEnd> EndOfLog(PgConnection& connection, int64_t ordinal, int32_t attempt) {
  LF_ASSIGN_OR_RETURN(PgRows rows, connection.Run("SELECT sequence, total_bytes FROM attempt_logs "
                                                  "WHERE ordinal = $1 AND attempt = $2 "
                                                  "ORDER BY sequence DESC LIMIT 1",
                                                  OfAttempt(ordinal, attempt)));
  LogEnd end;
  if (!rows.Next()) return end;
  end.sequence = rows.Int();
  end.total_bytes = rows.Int();
  return end;
}

// Looks at the lines that go and one more, not at those that stay.
absl::Status TrimLog(PgConnection& connection, int64_t ordinal, const LogAppend& append,
                     const LogEnd& end) {
  PgParams bytes = OfAttempt(ordinal, append.attempt);
  bytes.Bind(end.total_bytes - append.keep.bytes);
  LF_ASSIGN_OR_RETURN(PgRows within,
                      connection.Run("SELECT sequence FROM attempt_logs "
                                     "WHERE ordinal = $1 AND attempt = $2 AND total_bytes > $3 "
                                     "ORDER BY sequence LIMIT 1",
                                     bytes));
  const int64_t first =
      FirstKept(append, end, within.Next() ? std::optional<int64_t>(within.Int()) : std::nullopt);
  PgParams older = OfAttempt(ordinal, append.attempt);
  older.Bind(first);
  return connection
      .Run("DELETE FROM attempt_logs WHERE ordinal = $1 AND attempt = $2 AND sequence < $3", older)
      .status();
}

}  // namespace

absl::StatusOr<LogAppended> WriteLogs(PgConnection& connection, const LogAppend& append) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(connection, append.job));
  LF_ASSIGN_OR_RETURN(LogEnd end, EndOfLog(connection, ordinal, append.attempt));
  LogAppended appended;
  const std::vector<NewLogLine> lines = NewLines(append, end, appended);
  if (lines.empty()) return appended;
  std::vector<int64_t> sequences, times, totals;
  std::vector<std::string> texts;
  for (const auto& [line, total_bytes] : lines) {
    sequences.push_back(line->sequence);
    times.push_back(absl::ToUnixMicros(line->time));
    texts.push_back(line->text);
    totals.push_back(total_bytes);
  }
  PgParams params = OfAttempt(ordinal, append.attempt);
  params.BindInts(sequences).BindInts(times).BindBlobs(texts).BindInts(totals);
  // A worker that heard no answer may be writing the same lines through another server.
  LF_RETURN_IF_ERROR(connection
                         .RunKept("INSERT INTO attempt_logs SELECT $1, $2, * FROM "
                                  "unnest($3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[]) "
                                  "ON CONFLICT DO NOTHING",
                                  params)
                         .status());
  LF_RETURN_IF_ERROR(TrimLog(connection, ordinal, append, end));
  return appended;
}

absl::StatusOr<std::vector<LogRecord>> ReadLogs(PgConnection& connection, const LogQuery& query) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(connection, query.job));
  PgParams params = OfAttempt(ordinal, query.attempt);
  params.Bind(query.after).Bind(int64_t{query.limit});
  LF_ASSIGN_OR_RETURN(PgRows rows,
                      connection.Run("SELECT sequence, time, text FROM attempt_logs "
                                     "WHERE ordinal = $1 AND attempt = $2 AND sequence > $3 "
                                     "ORDER BY sequence LIMIT $4",
                                     params));
  std::vector<LogRecord> lines;
  while (rows.Next()) {
    LogRecord& line = lines.emplace_back();
    line.sequence = rows.Int();
    line.time = rows.Time();
    line.text = rows.Blob();
  }
  return lines;
}

absl::StatusOr<int64_t> FindLogTail(PgConnection& connection, absl::string_view id, int32_t attempt,
                                    int lines) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(connection, id));
  PgParams params = OfAttempt(ordinal, attempt);
  params.Bind(int64_t{lines});
  LF_ASSIGN_OR_RETURN(PgRows rows, connection.Run("SELECT sequence FROM attempt_logs "
                                                  "WHERE ordinal = $1 AND attempt = $2 "
                                                  "ORDER BY sequence DESC LIMIT 1 OFFSET $3",
                                                  params));
  return rows.Next() ? rows.Int() : 0;
}

}  // namespace latentforge::service::postgres

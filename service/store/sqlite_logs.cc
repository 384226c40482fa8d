#include "service/store/sqlite_logs.h"

#include <optional>

#include "base/status_macros.h"
#include "service/store/log_lines.h"
#include "service/store/sqlite_rows.h"

namespace latentforge::service {
namespace {

absl::StatusOr<LogEnd> EndOfLog(Database& db, int64_t ordinal, int32_t attempt) {
  LF_ASSIGN_OR_RETURN(Statement query, db.Prepare("SELECT sequence, total_bytes FROM attempt_logs "
                                                  "WHERE ordinal = ? AND attempt = ? "
                                                  "ORDER BY sequence DESC LIMIT 1"));
  LF_ASSIGN_OR_RETURN(const bool found, query.Bind(ordinal).Bind(int64_t{attempt}).Step());
  LogEnd end;
  if (!found) return end;
  end.sequence = query.Int();
  end.total_bytes = query.Int();
  return end;
}

// Looks at the lines that go and one more, not at those that stay.
absl::Status TrimLog(Database& db, int64_t ordinal, const LogAppend& append, const LogEnd& end) {
  LF_ASSIGN_OR_RETURN(Statement within,
                      db.Prepare("SELECT sequence FROM attempt_logs "
                                 "WHERE ordinal = ? AND attempt = ? AND total_bytes > ? "
                                 "ORDER BY sequence LIMIT 1"));
  within.Bind(ordinal).Bind(int64_t{append.attempt}).Bind(end.total_bytes - append.keep.bytes);
  LF_ASSIGN_OR_RETURN(const bool some, within.Step());
  const int64_t first =
      FirstKept(append, end, some ? std::optional<int64_t>(within.Int()) : std::nullopt);
  LF_ASSIGN_OR_RETURN(Statement trim,
                      db.Prepare("DELETE FROM attempt_logs "
                                 "WHERE ordinal = ? AND attempt = ? AND sequence < ?"));
  return trim.Bind(ordinal).Bind(int64_t{append.attempt}).Bind(first).Run();
}

}  // namespace

absl::StatusOr<LogAppended> WriteLogs(Database& db, const LogAppend& append) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(db, append.job));
  LF_ASSIGN_OR_RETURN(LogEnd end, EndOfLog(db, ordinal, append.attempt));
  LF_ASSIGN_OR_RETURN(Statement insert,
                      db.Prepare("INSERT INTO attempt_logs VALUES (?, ?, ?, ?, ?, ?)"));
  LogAppended appended;
  for (const auto& [line, total_bytes] : NewLines(append, end, appended)) {
    insert.Reset();
    LF_RETURN_IF_ERROR(insert.Bind(ordinal)
                           .Bind(int64_t{append.attempt})
                           .Bind(line->sequence)
                           .Bind(line->time)
                           .BindText(line->text)
                           .Bind(total_bytes)
                           .Run());
  }
  if (appended.added > 0) LF_RETURN_IF_ERROR(TrimLog(db, ordinal, append, end));
  return appended;
}

absl::StatusOr<std::vector<LogRecord>> ReadLogs(Database& db, const LogQuery& query) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(db, query.job));
  LF_ASSIGN_OR_RETURN(Statement select,
                      db.Prepare("SELECT sequence, time, text FROM attempt_logs "
                                 "WHERE ordinal = ? AND attempt = ? AND sequence > ? "
                                 "ORDER BY sequence LIMIT ?"));
  select.Bind(ordinal).Bind(int64_t{query.attempt}).Bind(query.after).Bind(int64_t{query.limit});
  std::vector<LogRecord> lines;
  while (true) {
    LF_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) return lines;
    LogRecord& line = lines.emplace_back();
    line.sequence = select.Int();
    line.time = select.Time();
    line.text = select.Text();
  }
}

absl::StatusOr<int64_t> FindLogTail(Database& db, absl::string_view id, int32_t attempt,
                                    int lines) {
  LF_ASSIGN_OR_RETURN(const int64_t ordinal, OrdinalOf(db, id));
  LF_ASSIGN_OR_RETURN(Statement query, db.Prepare("SELECT sequence FROM attempt_logs "
                                                  "WHERE ordinal = ? AND attempt = ? "
                                                  "ORDER BY sequence DESC LIMIT 1 OFFSET ?"));
  query.Bind(ordinal).Bind(int64_t{attempt}).Bind(int64_t{lines});
  LF_ASSIGN_OR_RETURN(const bool found, query.Step());
  return found ? query.Int() : 0;
}

}  // namespace latentforge::service

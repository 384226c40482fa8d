// Lines of attempts' logs as rows of SQLite.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "service/log_record.h"
#include "service/store/sqlite_db.h"

namespace latentforge::service {

// Within the caller's transaction. Errors of Store::AppendLogs.
absl::StatusOr<LogAppended> WriteLogs(Database& db, const LogAppend& append);

absl::StatusOr<std::vector<LogRecord>> ReadLogs(Database& db, const LogQuery& query);

absl::StatusOr<int64_t> FindLogTail(Database& db, absl::string_view id, int32_t attempt, int lines);

}  // namespace latentforge::service

// Lines of attempts' logs as rows of PostgreSQL.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "service/log_record.h"
#include "service/store/postgres_db.h"

namespace latentforge::service::postgres {

// Within the caller's transaction. Errors of Store::AppendLogs.
absl::StatusOr<LogAppended> WriteLogs(PgConnection& connection, const LogAppend& append);

absl::StatusOr<std::vector<LogRecord>> ReadLogs(PgConnection& connection, const LogQuery& query);

absl::StatusOr<int64_t> FindLogTail(PgConnection& connection, absl::string_view id, int32_t attempt,
                                    int lines);

}  // namespace latentforge::service::postgres

// Events of jobs as rows of SQLite.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "service/store/sqlite_db.h"
#include "service/store/store.h"

namespace latentforge::service {

// These two within the caller's transaction.
absl::Status AppendEvents(Database& db, int64_t ordinal, const std::vector<v1::JobEvent>& events);
absl::Status RemoveEvents(Database& db, const EventCompaction& compaction);

// As the methods of Store.
absl::StatusOr<std::vector<v1::JobEvent>> ReadEvents(Database& db, absl::string_view id,
                                                     int64_t after, int limit);
absl::StatusOr<int64_t> ReadCompactedThrough(Database& db, absl::string_view id);
absl::StatusOr<std::vector<EventSpan>> ReadLongHistories(Database& db, int64_t events, int limit);

}  // namespace latentforge::service

// Events of jobs as rows of PostgreSQL.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "service/store/postgres_db.h"
#include "service/store/store.h"

namespace latentforge::service::postgres {

// These two within the caller's transaction.
absl::Status AppendEvents(PgConnection& connection, int64_t ordinal,
                          const std::vector<v1::JobEvent>& events);
absl::Status RemoveEvents(PgConnection& connection, const EventCompaction& compaction);

// Two arrays: sequences and events.
void BindEvents(const std::vector<v1::JobEvent>& events, PgParams& params);

// As the methods of Store.
absl::StatusOr<std::vector<v1::JobEvent>> ReadEvents(PgConnection& connection, absl::string_view id,
                                                     int64_t after, int limit);
absl::StatusOr<int64_t> ReadCompactedThrough(PgConnection& connection, absl::string_view id);
absl::StatusOr<std::vector<EventSpan>> ReadLongHistories(PgConnection& connection, int64_t events,
                                                         int limit);

}  // namespace latentforge::service::postgres

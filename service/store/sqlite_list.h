// How the SQLite store finds a page of jobs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "service/store/sqlite_db.h"
#include "service/store/store.h"

namespace latentforge::service::sqlite {

// A label that fewer jobs have is looked up, and whatever else must hold is asked of each.
inline constexpr int64_t kFewJobs = 1000;

// As Store::List.
absl::StatusOr<std::vector<JobRecord>> ListJobs(Database& db, const JobQuery& query);

// Its statement, for tests of what it reads. `few` is the place of a label of few jobs among
// those of the query; without one, the list walks an index.
std::string ListStatement(const JobQuery& query, std::optional<size_t> few);

}  // namespace latentforge::service::sqlite

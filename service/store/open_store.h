// The store that --database names.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "service/store/store.h"

namespace latentforge::service {

struct StoreOptions {
  std::string database;   // a postgresql:// URI, else the path of a SQLite file
  int64_t max_bytes = 0;  // of a SQLite file; 0 means no limit of ours
  int threads = 8;        // that use the store at the same time
};

// Opens SqliteStore or PostgresStore; their errors, and InvalidArgument for max_bytes
// with PostgreSQL. Borrows the clock.
absl::StatusOr<std::unique_ptr<Store>> OpenStore(const StoreOptions& options, const Clock& clock);

// The database as logs name it: without parameters of its URI.
std::string DescribeDatabase(const std::string& database);

}  // namespace latentforge::service

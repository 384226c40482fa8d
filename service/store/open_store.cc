#include "service/store/open_store.h"

#include "base/status_macros.h"
#include "service/store/postgres_store.h"
#include "service/store/postgres_uri.h"
#include "service/store/sqlite_store.h"

namespace latentforge::service {
namespace {

// Beside the threads for calls: scheduler, follower of the store, and metrics.
constexpr int kOwnThreads = 3;

absl::StatusOr<std::unique_ptr<Store>> OpenPostgres(const StoreOptions& options,
                                                    const Clock& clock) {
  if (options.max_bytes > 0) {
    return absl::InvalidArgumentError(
        "--database-max-bytes is for a SQLite file; give PostgreSQL's database a tablespace of "
        "limited size instead");
  }
  LF_ASSIGN_OR_RETURN(
      std::unique_ptr<Store> store,
      PostgresStore::Open(options.database, {.connections = options.threads + kOwnThreads}, clock));
  return store;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> OpenStore(const StoreOptions& options, const Clock& clock) {
  if (IsPostgresUri(options.database)) return OpenPostgres(options, clock);
  LF_ASSIGN_OR_RETURN(std::unique_ptr<Store> store,
                      SqliteStore::Open(options.database, {options.max_bytes}, clock));
  return store;
}

std::string DescribeDatabase(const std::string& database) {
  return IsPostgresUri(database) ? DescribePostgres(database) : database;
}

}  // namespace latentforge::service

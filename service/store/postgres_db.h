// PostgreSQL with RAII handles and Status errors. The only files that see libpq-fe.h
// are postgres_db.cc, postgres_uri.cc and postgres_values.cc.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "service/store/postgres_values.h"

struct pg_conn;

namespace latentforge::service {

// One session. Movable; not safe for concurrent use. Errors, also those of its
// statements: Unavailable STORE_DOWN when the database cannot be reached, is
// shutting down or read-only, has too many connections, or is too slow; STORE_BUSY
// when a lock did not come in time, and Aborted STORE_BUSY when the database gave up
// the transaction for another one; ResourceExhausted STORE_FULL; AlreadyExists
// STORE_CONFLICT; DataLoss STORE_CORRUPT; PermissionDenied STORE_UNWRITABLE; else
// Internal STORE_FAILED.
class PgConnection {
 public:
  struct Timeouts {
    absl::Duration statement = absl::Seconds(10);
    absl::Duration lock = absl::Seconds(5);
    // More than the statement's, after which the database counts as gone.
    absl::Duration answer = absl::Seconds(5);
  };

  // Connects; blocks at most a few seconds a host. `uri` passed CheckPostgresUri.
  // FailedPrecondition for a server older than PostgreSQL 15.
  static absl::StatusOr<PgConnection> Connect(const std::string& uri, const Timeouts& timeouts);

  // One statement.
  absl::StatusOr<PgRows> Run(const std::string& sql, const PgParams& params = {});

  // The same for a text that comes again and again, with parameters of the same types: the
  // database parses it once and may keep its plan, which must suit tables of any size. Texts are
  // kept as long as the connection.
  absl::StatusOr<PgRows> RunKept(const std::string& sql, const PgParams& params = {});

  // Statements without parameters, in one transaction unless they say otherwise.
  absl::Status Execute(const std::string& script);

  // True when it is between transactions and has not noticed that the database is
  // gone. Asks nothing.
  bool Usable();

 private:
  friend class PgTransaction;
  struct Finisher {
    void operator()(pg_conn* connection) const;
  };
  PgConnection(pg_conn* connection, const Timeouts& timeouts)
      : connection_(connection), timeouts_(timeouts) {}

  // The result of what is sent, one statement after another, without waiting in between.
  absl::StatusOr<PgRows> Exchange(const std::string& sql, const PgParams& params, bool kept);
  bool Send(const std::string& sql, const PgParams& params, const std::string* name);
  absl::StatusOr<PgRows> TakeResult(absl::string_view sql);
  // To the end of a pipeline.
  absl::Status FinishPipeline();
  absl::Status AwaitResult();
  absl::Status Lost(absl::string_view action);
  absl::Status ErrorOf(const pg_result* result, absl::string_view sql);

  std::unique_ptr<pg_conn, Finisher> connection_;
  Timeouts timeouts_;
  std::map<std::string, std::string> kept_;  // names of prepared statements, by text
  bool begin_first_ = false;                 // a transaction was begun, which is yet to be said
};

// BEGIN, which goes to the database together with the first statement; rolls back unless
// committed. Borrows the connection.
class PgTransaction {
 public:
  explicit PgTransaction(PgConnection& connection);
  PgTransaction(const PgTransaction&) = delete;
  PgTransaction& operator=(const PgTransaction&) = delete;
  ~PgTransaction();

  // STORE_DOWN with "outcome" "unknown" in its message and metadata when the answer
  // was lost: the transaction may have been committed.
  absl::Status Commit();

 private:
  PgConnection* connection_;  // nullptr when over
};

// The error of a database that cannot be used at the moment.
absl::Status StoreDownError(absl::string_view message);

}  // namespace latentforge::service

// PostgreSQL with RAII handles and Status errors. The only files that see libpq-fe.h
// are postgres_db.cc and postgres_uri.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

struct pg_conn;
struct pg_result;

namespace latentforge::service {

// Values for $1, $2, … in order. A plain value.
class PgParams {
 public:
  PgParams& Bind(int64_t value);
  PgParams& Bind(double value);
  PgParams& Bind(absl::Time value);  // microseconds since the epoch
  PgParams& BindText(absl::string_view value);
  PgParams& BindTexts(const std::vector<std::string>& values);  // a text[]
  PgParams& BindBlob(absl::string_view value);
  // Of which nothing is known, not even that it is UTF-8.
  PgParams& BindOutsideText(absl::string_view value) { return BindBlob(value); }
  PgParams& BindNull();

  int size() const { return static_cast<int>(values_.size()); }

 private:
  friend class PgConnection;
  PgParams& Add(unsigned type, bool binary, std::string value);

  struct Value {
    unsigned type = 0;
    bool binary = false;
    bool null = false;
    std::string bytes;
  };
  std::vector<Value> values_;
};

// What a statement gave, held in memory. Next until false; read columns in order.
class PgRows {
 public:
  bool Next();

  // The next column of the row.
  int64_t Int();
  double Double();
  std::string Text();
  std::string Blob() { return Text(); }
  absl::Time Time();
  bool NextIsNull() const;

  // Rows that the statement returned, or changed.
  int64_t count() const;

 private:
  friend class PgConnection;
  struct Clearer {
    void operator()(pg_result* result) const;
  };
  explicit PgRows(pg_result* result) : result_(result) {}

  std::unique_ptr<pg_result, Clearer> result_;
  int row_ = -1;
  int column_ = 0;
};

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

  // Statements without parameters, in one transaction unless they say otherwise.
  absl::Status Execute(const std::string& script);

  // True when it is between transactions and has not noticed that the database is
  // gone. Asks nothing.
  bool Usable();

 private:
  struct Finisher {
    void operator()(pg_conn* connection) const;
  };
  PgConnection(pg_conn* connection, const Timeouts& timeouts)
      : connection_(connection), timeouts_(timeouts) {}

  absl::StatusOr<PgRows> TakeResult(absl::string_view sql);
  absl::Status AwaitResult();
  absl::Status Lost(absl::string_view action);
  absl::Status ErrorOf(const pg_result* result, absl::string_view sql);

  std::unique_ptr<pg_conn, Finisher> connection_;
  Timeouts timeouts_;
};

// BEGIN; rolls back unless committed. Borrows the connection.
class PgTransaction {
 public:
  static absl::StatusOr<PgTransaction> Begin(PgConnection& connection);
  PgTransaction(PgTransaction&& other) noexcept;
  PgTransaction& operator=(PgTransaction&&) = delete;
  ~PgTransaction();

  // STORE_DOWN with "outcome" "unknown" in its message and metadata when the answer
  // was lost: the transaction may have been committed.
  absl::Status Commit();

 private:
  explicit PgTransaction(PgConnection& connection) : connection_(&connection) {}
  PgConnection* connection_;  // nullptr when over
};

// The error of a database that cannot be used at the moment.
absl::Status StoreDownError(absl::string_view message);

}  // namespace latentforge::service

// SQLite with RAII handles and Status errors. The only files that see sqlite3.h
// are the sqlite_*.cc here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

struct sqlite3;
struct sqlite3_stmt;

namespace latentforge::service {

class Statement;

// One connection. Movable; not safe for concurrent use.
class Database {
 public:
  enum class Mode { kReadWrite, kReadOnly };

  Database(Database&& other) noexcept;
  Database& operator=(Database&& other) noexcept;
  ~Database();

  // Opens, and in kReadWrite creates, the file. Errors name the path.
  static absl::StatusOr<Database> Open(const std::filesystem::path& path, Mode mode);

  // Runs statements without parameters or rows.
  absl::Status Execute(const std::string& sql);

  // `sql` is one statement; `?` are its parameters. Statements are kept when they are destroyed,
  // and prepared once.
  absl::StatusOr<Statement> Prepare(absl::string_view sql);

  bool in_transaction() const;

  // Of the last statement.
  int64_t changes() const;
  int64_t last_insert_rowid() const;

 private:
  friend class Statement;
  struct Closer {
    void operator()(sqlite3* db) const;
  };

  class IdleStatements;

  explicit Database(sqlite3* db);

  std::unique_ptr<sqlite3, Closer> db_;
  std::unique_ptr<IdleStatements> idle_;  // goes before the connection
};

// One prepared statement. Bind every parameter in order, Step until false, read
// columns in order; Reset before it is used again. Borrows the database.
class Statement {
 public:
  Statement& Bind(int64_t value);
  Statement& Bind(double value);
  Statement& BindText(absl::string_view value);
  Statement& BindBlob(absl::string_view value);
  // Of which nothing is known, not even that it is UTF-8.
  Statement& BindOutsideText(absl::string_view value) { return BindText(value); }
  Statement& Bind(absl::Time value);  // microseconds since the epoch
  Statement& BindNull();

  // True: a row is there. False: the statement is finished. Errors of Bind
  // appear here.
  absl::StatusOr<bool> Step();

  // Steps to the end.
  absl::Status Run();

  // The next column of the row.
  int64_t Int();
  double Double();
  std::string Text();
  std::string Blob();
  absl::Time Time();
  bool NextIsNull() const;

  void Reset();

 private:
  friend class Database;
  struct Returner {
    Database::IdleStatements* idle;
    void operator()(sqlite3_stmt* statement) const;
  };

  Statement(sqlite3* db, sqlite3_stmt* statement, Database::IdleStatements* idle)
      : db_(db), statement_(statement, Returner{idle}) {}
  void Note(int code);

  sqlite3* db_;
  std::unique_ptr<sqlite3_stmt, Returner> statement_;
  int bound_ = 0;
  int column_ = 0;
  int error_ = 0;  // first failed bind
};

// BEGIN IMMEDIATE; rolls back unless committed. Borrows the database.
class Transaction {
 public:
  static absl::StatusOr<Transaction> Begin(Database& db);
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();

  absl::Status Commit();

 private:
  explicit Transaction(Database& db) : db_(&db) {}
  Database* db_;  // nullptr when over
};

}  // namespace latentforge::service

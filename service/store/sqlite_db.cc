#include "service/store/sqlite_db.h"

#include <sqlite3.h>

#include <functional>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

absl::Status SqliteStatus(sqlite3* db, int code, absl::string_view action) {
  const std::string message =
      absl::StrCat("database: ", action, ": ", db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
  switch (code & 0xFF) {
    case SQLITE_FULL:
      return MakeError(absl::StatusCode::kResourceExhausted, "STORE_FULL", message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return WithRetryDelay(MakeError(absl::StatusCode::kUnavailable, kStoreBusy, message),
                            absl::Seconds(1));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT", message);
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return MakeError(absl::StatusCode::kPermissionDenied, "STORE_UNWRITABLE", message);
    case SQLITE_CONSTRAINT:
      return MakeError(absl::StatusCode::kAlreadyExists, "STORE_CONFLICT", message);
    default:
      return MakeError(absl::StatusCode::kInternal, "STORE_FAILED", message);
  }
}

}  // namespace

// By their text, which SQLite keeps.
class Database::IdleStatements {
 public:
  // nullptr when there is none.
  sqlite3_stmt* Take(absl::string_view sql) {
    const auto found = statements_.find(sql);
    return found == statements_.end() ? nullptr : statements_.extract(found).mapped().release();
  }

  void Put(sqlite3_stmt* statement) {
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    Owned owned(statement);
    if (statements_.size() < kMost)
      statements_.try_emplace(sqlite3_sql(statement), std::move(owned));
  }

 private:
  // More than the store has; filters of lists have many forms.
  static constexpr size_t kMost = 100;
  struct Finalizer {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  using Owned = std::unique_ptr<sqlite3_stmt, Finalizer>;

  std::map<std::string, Owned, std::less<>> statements_;
};

Database::Database(sqlite3* db) : db_(db), idle_(std::make_unique<IdleStatements>()) {}

Database::Database(Database&& other) noexcept = default;

// The statements go before their connection, which the default would not do.
Database& Database::operator=(Database&& other) noexcept {
  idle_ = std::move(other.idle_);
  db_ = std::move(other.db_);
  return *this;
}

Database::~Database() = default;

void Database::Closer::operator()(sqlite3* db) const { sqlite3_close_v2(db); }

absl::StatusOr<Database> Database::Open(const std::filesystem::path& path, Mode mode) {
  sqlite3* raw = nullptr;
  // The caller serialises each connection, so SQLite's own mutexes are not needed.
  const int flags =
      SQLITE_OPEN_NOMUTEX | (mode == Mode::kReadWrite ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
                                                      : SQLITE_OPEN_READONLY);
  const int code = sqlite3_open_v2(path.c_str(), &raw, flags, nullptr);
  Database db(raw);
  if (code != SQLITE_OK) return Annotate(SqliteStatus(raw, code, "open"), path.string());
  sqlite3_extended_result_codes(raw, 1);
  sqlite3_busy_timeout(raw, 5000);
  return db;
}

absl::Status Database::Execute(const std::string& sql) {
  const int code = sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return SqliteStatus(db_.get(), code, sql);
  return absl::OkStatus();
}

absl::StatusOr<Statement> Database::Prepare(absl::string_view sql) {
  if (sqlite3_stmt* const idle = idle_->Take(sql)) return Statement(db_.get(), idle, idle_.get());
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v3(db_.get(), sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
  if (code != SQLITE_OK) return SqliteStatus(db_.get(), code, sql);
  return Statement(db_.get(), raw, idle_.get());
}

bool Database::in_transaction() const { return sqlite3_get_autocommit(db_.get()) == 0; }

int64_t Database::changes() const { return sqlite3_changes64(db_.get()); }

int64_t Database::last_insert_rowid() const { return sqlite3_last_insert_rowid(db_.get()); }

void Statement::Returner::operator()(sqlite3_stmt* statement) const { idle->Put(statement); }

void Statement::Note(int code) {
  if (code != SQLITE_OK && error_ == 0) error_ = code;
}

Statement& Statement::Bind(int64_t value) {
  Note(sqlite3_bind_int64(statement_.get(), ++bound_, value));
  return *this;
}

Statement& Statement::Bind(double value) {
  Note(sqlite3_bind_double(statement_.get(), ++bound_, value));
  return *this;
}

Statement& Statement::BindText(absl::string_view value) {
  Note(sqlite3_bind_text(statement_.get(), ++bound_, value.data(), static_cast<int>(value.size()),
                         SQLITE_TRANSIENT));
  return *this;
}

Statement& Statement::BindBlob(absl::string_view value) {
  // A null pointer would bind NULL, which an empty message is not.
  const char* data = value.empty() ? "" : value.data();
  Note(sqlite3_bind_blob(statement_.get(), ++bound_, data, static_cast<int>(value.size()),
                         SQLITE_TRANSIENT));
  return *this;
}

Statement& Statement::Bind(absl::Time value) { return Bind(absl::ToUnixMicros(value)); }

Statement& Statement::BindNull() {
  Note(sqlite3_bind_null(statement_.get(), ++bound_));
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  if (error_ != 0) return SqliteStatus(db_, error_, "bind");
  column_ = 0;
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return SqliteStatus(db_, code, "step");
}

absl::Status Statement::Run() {
  while (true) {
    LF_ASSIGN_OR_RETURN(const bool row, Step());
    if (!row) return absl::OkStatus();
  }
}

int64_t Statement::Int() { return sqlite3_column_int64(statement_.get(), column_++); }

double Statement::Double() { return sqlite3_column_double(statement_.get(), column_++); }

std::string Statement::Text() { return Blob(); }

std::string Statement::Blob() {
  const void* data = sqlite3_column_blob(statement_.get(), column_);
  const int size = sqlite3_column_bytes(statement_.get(), column_++);
  return data == nullptr ? std::string() : std::string(static_cast<const char*>(data), size);
}

absl::Time Statement::Time() { return absl::FromUnixMicros(Int()); }

bool Statement::NextIsNull() const {
  return sqlite3_column_type(statement_.get(), column_) == SQLITE_NULL;
}

void Statement::Reset() {
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
  bound_ = column_ = error_ = 0;
}

absl::StatusOr<Transaction> Transaction::Begin(Database& db) {
  LF_RETURN_IF_ERROR(db.Execute("BEGIN IMMEDIATE"));
  return Transaction(db);
}

Transaction::Transaction(Transaction&& other) noexcept : db_(std::exchange(other.db_, nullptr)) {}

Transaction::~Transaction() {
  // Nothing more can be done when a rollback fails: SQLite then rolled back.
  if (db_ != nullptr) db_->Execute("ROLLBACK").IgnoreError();
}

absl::Status Transaction::Commit() {
  LF_RETURN_IF_ERROR(db_->Execute("COMMIT"));
  db_ = nullptr;
  return absl::OkStatus();
}

}  // namespace latentforge::service

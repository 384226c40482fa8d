#include "service/store/postgres_db.h"

#include <libpq-fe.h>
#include <poll.h>

#include <cerrno>
#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "service/errors.h"
#include "service/store/postgres_uri.h"

namespace latentforge::service {
namespace {

constexpr int kOldestVersion = 150000;
constexpr int kBinary = 1;  // format of parameters and results
constexpr absl::Duration kRetryDelay = absl::Seconds(1);

// What holds unless the URI says otherwise: a machine that vanished is noticed
// within about half a minute, and of several hosts the primary is taken.
constexpr std::pair<const char*, const char*> kDefaults[] = {
    {"connect_timeout", "5"},
    {"keepalives_idle", "10"},
    {"keepalives_interval", "5"},
    {"keepalives_count", "3"},
    {"tcp_user_timeout", "20000"},
    {"target_session_attrs", "read-write"},
    {"fallback_application_name", "latentforge-server"}};

absl::Status Retryable(absl::StatusCode code, absl::string_view reason, absl::string_view message) {
  return WithRetryDelay(MakeError(code, reason, message), kRetryDelay);
}

absl::Status SqlStatus(absl::string_view state, absl::string_view message) {
  const absl::string_view kind = state.substr(0, 2);
  if (state == "40001" || state == "40P01")  // serialisation, deadlock
    return MakeError(absl::StatusCode::kAborted, kStoreBusy, message);
  if (state == "55P03")  // lock_timeout
    return Retryable(absl::StatusCode::kUnavailable, kStoreBusy, message);
  if (state == "53100")
    return MakeError(absl::StatusCode::kResourceExhausted, "STORE_FULL", message);
  if (state == "23505")
    return MakeError(absl::StatusCode::kAlreadyExists, "STORE_CONFLICT", message);
  if (state == "42501")
    return MakeError(absl::StatusCode::kPermissionDenied, "STORE_UNWRITABLE", message);
  if (kind == "XX" && state != "XX000")
    return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT", message);
  // Connection, resources, operator's intervention, and a primary that became a standby.
  if (kind == "08" || kind == "53" || kind == "57" || state == "25006" || state == "25P03")
    return StoreDownError(message);
  return MakeError(absl::StatusCode::kInternal, "STORE_FAILED", message);
}

// Enough of a statement to know which it is.
absl::string_view Head(absl::string_view sql) { return sql.substr(0, 60); }

// libpq's messages end their lines, and may have several.
std::string Line(const char* message) {
  return absl::StrReplaceAll(absl::StripSuffix(message == nullptr ? "" : message, "\n"),
                             {{"\n\t", "; "}, {"\n", "; "}});
}

std::string Settings(const PgConnection::Timeouts& timeouts) {
  const int64_t statement = absl::ToInt64Milliseconds(timeouts.statement);
  return absl::StrCat("SET statement_timeout = ", statement,
                      "; SET lock_timeout = ", absl::ToInt64Milliseconds(timeouts.lock),
                      "; SET idle_in_transaction_session_timeout = ", statement,
                      "; SET default_transaction_isolation = 'read committed'",
                      // An answer must mean that the change is on disk.
                      "; SELECT set_config('synchronous_commit', 'on', false)"
                      " WHERE current_setting('synchronous_commit') = 'off'");
}

}  // namespace

absl::Status StoreDownError(absl::string_view message) {
  return Retryable(absl::StatusCode::kUnavailable, kStoreDown, message);
}

void PgConnection::Finisher::operator()(pg_conn* connection) const { PQfinish(connection); }

absl::StatusOr<PgConnection> PgConnection::Connect(const std::string& uri,
                                                   const Timeouts& timeouts) {
  std::vector<const char*> keys;
  std::vector<const char*> values;
  const auto add = [&](const char* key, const char* value) {
    keys.push_back(key);
    values.push_back(value);
  };
  // Of one keyword the last value counts.
  for (const auto& [key, value] : kDefaults) add(key, value);
  add("dbname", uri.c_str());
  add("client_encoding", "UTF8");
  add(nullptr, nullptr);
  PgConnection connection(PQconnectdbParams(keys.data(), values.data(), /*expand_dbname=*/1),
                          timeouts);
  pg_conn* raw = connection.connection_.get();
  if (raw == nullptr || PQstatus(raw) != CONNECTION_OK) {
    return StoreDownError(absl::StrCat("database ", DescribePostgres(uri), ": ",
                                       raw == nullptr ? "no memory" : Line(PQerrorMessage(raw))));
  }
  // Notices would go to stderr, past our log.
  PQsetNoticeProcessor(
      raw, [](void*, const char*) {}, nullptr);
  if (PQserverVersion(raw) < kOldestVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("database ", DescribePostgres(uri), " is PostgreSQL ",
                     PQserverVersion(raw) / 10000, ", expected 15 or newer"));
  }
  LF_RETURN_IF_ERROR(connection.Execute(Settings(timeouts)));
  return connection;
}

absl::Status PgConnection::Lost(absl::string_view action) {
  const std::string why =
      connection_ == nullptr ? "the connection is closed" : Line(PQerrorMessage(connection_.get()));
  connection_.reset();
  return StoreDownError(absl::StrCat("database: ", Head(action), ": ", why));
}

absl::Status PgConnection::ErrorOf(const pg_result* result, absl::string_view sql) {
  const auto field = [&](int code) {
    const char* text = PQresultErrorField(result, code);
    return std::string(text == nullptr ? "" : text);
  };
  const std::string state = field(PG_DIAG_SQLSTATE);
  if (state.empty()) return Lost(sql);
  const absl::Status status =
      SqlStatus(state, absl::StrCat("database: ", Head(sql), ": ", field(PG_DIAG_MESSAGE_PRIMARY),
                                    " (", state, ")"));
  // What a standby or a database that shuts down answers, it goes on answering.
  if (ReasonOf(status) == kStoreDown && state != "57014") connection_.reset();
  return status;
}

absl::Status PgConnection::AwaitResult() {
  const absl::Duration deadline = RealClock().Monotonic() + timeouts_.statement + timeouts_.answer;
  while (PQisBusy(connection_.get()) != 0) {
    const absl::Duration left = deadline - RealClock().Monotonic();
    pollfd readable = {.fd = PQsocket(connection_.get()), .events = POLLIN, .revents = 0};
    const int ready =
        left <= absl::ZeroDuration()
            ? 0
            : poll(&readable, 1, static_cast<int>(absl::ToInt64Milliseconds(left) + 1));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      connection_.reset();
      return StoreDownError("database: it does not answer");
    }
    if (PQconsumeInput(connection_.get()) == 0) return Lost("read its answer");
  }
  return absl::OkStatus();
}

absl::StatusOr<PgRows> PgConnection::TakeResult(absl::string_view sql) {
  std::unique_ptr<pg_result, PgRows::Clearer> last;  // or the first that failed
  const auto failed = [&last] {
    const ExecStatusType status = PQresultStatus(last.get());
    return status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK;
  };
  while (true) {
    LF_RETURN_IF_ERROR(AwaitResult());
    std::unique_ptr<pg_result, PgRows::Clearer> result(PQgetResult(connection_.get()));
    if (result == nullptr) break;
    if (last == nullptr || !failed()) last = std::move(result);
  }
  if (last == nullptr) return Lost(sql);
  if (failed()) return ErrorOf(last.get(), sql);
  return PgRows(last.release());
}

bool PgConnection::Send(const std::string& sql, const PgParams& params, const std::string* name) {
  std::vector<Oid> types;
  std::vector<const char*> values;
  std::vector<int> lengths;
  std::vector<int> formats;
  for (const PgParams::Value& value : params.values_) {
    types.push_back(value.type);
    values.push_back(value.null ? nullptr : value.bytes.data());
    lengths.push_back(static_cast<int>(value.bytes.size()));
    formats.push_back(kBinary);
  }
  pg_conn* const raw = connection_.get();
  if (name == nullptr) {
    return PQsendQueryParams(raw, sql.c_str(), params.size(), types.data(), values.data(),
                             lengths.data(), formats.data(), kBinary) != 0;
  }
  if (kept_.count(sql) == 0 &&
      PQsendPrepare(raw, name->c_str(), sql.c_str(), params.size(), types.data()) == 0)
    return false;
  return PQsendQueryPrepared(raw, name->c_str(), params.size(), values.data(), lengths.data(),
                             formats.data(), kBinary) != 0;
}

absl::Status PgConnection::FinishPipeline() {
  while (true) {
    LF_RETURN_IF_ERROR(AwaitResult());
    const std::unique_ptr<pg_result, PgRows::Clearer> result(PQgetResult(connection_.get()));
    if (result != nullptr && PQresultStatus(result.get()) == PGRES_PIPELINE_SYNC) break;
    if (PQstatus(connection_.get()) == CONNECTION_BAD) return Lost("end a pipeline");
  }
  return PQexitPipelineMode(connection_.get()) != 0 ? absl::OkStatus() : Lost("end a pipeline");
}

absl::StatusOr<PgRows> PgConnection::Exchange(const std::string& sql, const PgParams& params,
                                              bool kept) {
  if (connection_ == nullptr) return Lost(sql);
  pg_conn* const raw = connection_.get();
  const auto known = kept_.find(sql);
  const bool prepare = kept && known == kept_.end();
  const std::string name =
      known == kept_.end() ? absl::StrCat("kept", kept_.size()) : known->second;
  const bool begin = std::exchange(begin_first_, false);
  const bool piped = begin || prepare;
  if (piped && PQenterPipelineMode(raw) == 0) return Lost(sql);
  if (begin && !Send("BEGIN", {}, nullptr)) return Lost(sql);
  if (!Send(sql, params, kept ? &name : nullptr)) return Lost(sql);
  if (!piped) return TakeResult(sql);
  if (PQpipelineSync(raw) == 0) return Lost(sql);
  // After an error the database passes the rest of a pipeline over.
  absl::StatusOr<PgRows> result = absl::InternalError("nothing was asked");
  for (int statements = 1 + (begin ? 1 : 0) + (prepare ? 1 : 0); statements > 0; --statements) {
    result = TakeResult(sql);
    if (!result.ok()) break;
    if (prepare && statements == 2) kept_[sql] = name;
  }
  if (connection_ != nullptr) LF_RETURN_IF_ERROR(FinishPipeline());
  return result;
}

absl::StatusOr<PgRows> PgConnection::Run(const std::string& sql, const PgParams& params) {
  return Exchange(sql, params, /*kept=*/false);
}

absl::StatusOr<PgRows> PgConnection::RunKept(const std::string& sql, const PgParams& params) {
  return Exchange(sql, params, /*kept=*/true);
}

absl::Status PgConnection::Execute(const std::string& script) {
  const bool begin = std::exchange(begin_first_, false);
  if (connection_ == nullptr ||
      PQsendQuery(connection_.get(), (begin ? "BEGIN;" + script : script).c_str()) == 0)
    return Lost(script);
  return TakeResult(script).status();
}

bool PgConnection::Usable() {
  if (connection_ == nullptr || PQtransactionStatus(connection_.get()) != PQTRANS_IDLE)
    return false;
  // Nobody asked anything: what there is to read is a farewell, or the end.
  pollfd readable = {.fd = PQsocket(connection_.get()), .events = POLLIN, .revents = 0};
  return poll(&readable, 1, 0) == 0;
}

PgTransaction::PgTransaction(PgConnection& connection) : connection_(&connection) {
  connection.begin_first_ = true;
}

PgTransaction::~PgTransaction() {
  if (connection_ == nullptr || std::exchange(connection_->begin_first_, false)) return;
  // When a rollback fails the connection is gone, and the transaction with it.
  connection_->Execute("ROLLBACK").IgnoreError();
}

absl::Status PgTransaction::Commit() {
  PgConnection& connection = *std::exchange(connection_, nullptr);
  if (std::exchange(connection.begin_first_, false)) return absl::OkStatus();
  const absl::Status status = connection.Execute("COMMIT");
  if (status.ok() || connection.Usable()) return status;
  return WithRetryDelay(
      MakeError(status.code(), ReasonOf(status),
                absl::StrCat("the outcome of the commit is unknown: ", status.message()),
                {{"outcome", "unknown"}}),
      kRetryDelay);
}

}  // namespace latentforge::service

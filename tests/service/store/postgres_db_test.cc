#include "service/store/postgres_db.h"

#include <signal.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/errors.h"
#include "service/store/postgres_store.h"
#include "service/store/postgres_uri.h"
#include "tests/service/store/postgres_server.h"
#include "tests/service/temp_dir.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;
using testing::Not;

// A file with kPassword's place filled by `password`.
std::string PassFile(const TempDir& dir, const std::string& password) {
  const std::filesystem::path path = dir.path() / "pass";
  std::ofstream(path) << "*:*:*:*:" << password << "\n";
  std::filesystem::permissions(path, std::filesystem::perms::owner_read);
  return path;
}

class PostgresDbTest : public testing::Test {
 protected:
  PgConnection Connect(const PgConnection::Timeouts& timeouts = {}) {
    auto connected = PgConnection::Connect(uri_, timeouts);
    EXPECT_TRUE(connected.ok()) << connected.status();
    return *std::move(connected);
  }

  PostgresServer& server_ = PostgresServer::Shared();
  const std::string uri_ = server_.NewDatabase();
};

TEST_F(PostgresDbTest, ValuesGoThereAndBack) {
  PgConnection connection = Connect();
  const std::string bytes("\0\xFF'\\\n", 5);
  const absl::Time time = absl::FromUnixMicros(-1'234'567'890'123);
  auto rows = connection.Run(
      "SELECT $1, $2::smallint, $3, $4, $5, $6, $7, array_length($8, 1)::bigint, ($8)[2]",
      PgParams()
          .Bind(std::numeric_limits<int64_t>::min())
          .Bind(int64_t{-2})
          .Bind(-12.5)
          .BindText("ü")
          .BindBlob(bytes)
          .Bind(time)
          .BindNull()
          .BindTexts({"", "a\"\\,{} b"}));
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_TRUE(rows->Next());
  EXPECT_EQ(rows->Int(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(rows->Int(), -2);
  EXPECT_EQ(rows->Double(), -12.5);
  EXPECT_EQ(rows->Text(), "ü");
  EXPECT_EQ(rows->Blob(), bytes);
  EXPECT_EQ(rows->Time(), time);
  EXPECT_TRUE(rows->NextIsNull());
  EXPECT_EQ(rows->Text(), "");
  EXPECT_EQ(rows->Int(), 2);
  EXPECT_EQ(rows->Text(), "a\"\\,{} b");
  EXPECT_FALSE(rows->Next());
}

TEST_F(PostgresDbTest, ArraysGoThere) {
  PgConnection connection = Connect();
  auto rows = connection.Run("SELECT x, y FROM unnest($1::bigint[], $2::bytea[]) AS t (x, y)",
                             PgParams().BindInts({-1, 1LL << 40}).BindBlobs({"", "\xFF{,"}));
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->count(), 2);
  ASSERT_TRUE(rows->Next());
  EXPECT_EQ(rows->Int(), -1);
  EXPECT_EQ(rows->Blob(), "");
  ASSERT_TRUE(rows->Next());
  EXPECT_EQ(rows->Int(), 1LL << 40);
  EXPECT_EQ(rows->Blob(), "\xFF{,");
  auto none = connection.Run("SELECT unnest($1::bigint[])", PgParams().BindInts({}));
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(none->count(), 0);
}

TEST_F(PostgresDbTest, AStatementThatIsKeptIsParsedOnce) {
  PgConnection connection = Connect();
  const auto prepared = [&connection] {
    auto rows = connection.Run("SELECT count(*) FROM pg_prepared_statements");
    EXPECT_TRUE(rows.ok() && rows->Next()) << rows.status();
    return rows->Int();
  };
  const std::string half = "SELECT 2 / $1";
  for (const int64_t divisor : {1, 2}) {
    auto rows = connection.RunKept(half, PgParams().Bind(divisor));
    ASSERT_TRUE(rows.ok() && rows->Next()) << rows.status();
    EXPECT_EQ(rows->Int(), 2 / divisor);
    EXPECT_EQ(prepared(), 1);
  }
  // Neither its own failure nor that of its parsing spoils the connection.
  EXPECT_EQ(ReasonOf(connection.RunKept(half, PgParams().Bind(int64_t{0})).status()),
            "STORE_FAILED");
  EXPECT_THAT(std::string(connection.RunKept("SELECT nothing").status().message()),
              HasSubstr("SELECT nothing: column"));
  EXPECT_EQ(prepared(), 1);
  EXPECT_TRUE(connection.RunKept(half, PgParams().Bind(int64_t{1})).ok());
  EXPECT_TRUE(connection.Usable());
}

TEST_F(PostgresDbTest, ATransactionBeginsWithItsFirstStatement) {
  PgConnection connection = Connect();
  ASSERT_TRUE(connection.Execute("CREATE TABLE t (x int)").ok());
  {
    PgTransaction transaction(connection);
    EXPECT_TRUE(connection.Usable());
    ASSERT_TRUE(connection.RunKept("INSERT INTO t VALUES (1)").ok());
    EXPECT_FALSE(connection.Usable());
    EXPECT_EQ(AskSql(uri_, "SELECT count(*) FROM t"), 0);
    ASSERT_TRUE(transaction.Commit().ok());
  }
  EXPECT_EQ(AskSql(uri_, "SELECT count(*) FROM t"), 1);
  // A first statement that fails takes the transaction along; one without any is nothing.
  {
    const PgTransaction failing(connection);
    EXPECT_FALSE(connection.RunKept("INSERT INTO t VALUES (1 / 0)").ok());
    EXPECT_FALSE(connection.Usable());
  }
  EXPECT_TRUE(connection.Usable());
  EXPECT_TRUE(PgTransaction(connection).Commit().ok());
  EXPECT_TRUE(connection.Usable());
  EXPECT_EQ(AskSql(uri_, "SELECT count(*) FROM t"), 1);
}

TEST_F(PostgresDbTest, AFailedStatementNamesItselfAndLeavesTheConnection) {
  PgConnection connection = Connect();
  const absl::Status status = connection.Run("SELECT nothing").status();
  EXPECT_EQ(ReasonOf(status), "STORE_FAILED");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("SELECT nothing: column \"nothing\" does not exist (42703)"));
  EXPECT_TRUE(connection.Usable());
}

TEST_F(PostgresDbTest, AnUncommittedTransactionIsRolledBack) {
  PgConnection connection = Connect();
  ASSERT_TRUE(connection.Execute("CREATE TABLE t (x int)").ok());
  {
    const PgTransaction transaction(connection);
    ASSERT_TRUE(connection.Execute("INSERT INTO t VALUES (1)").ok());
    EXPECT_FALSE(connection.Usable());
  }
  EXPECT_TRUE(connection.Usable());
  EXPECT_EQ(AskSql(uri_, "SELECT count(*) FROM t"), 0);
}

TEST_F(PostgresDbTest, AClosedConnectionIsNoticedWithoutAsking) {
  PgConnection connection = Connect();
  auto pid = connection.Run("SELECT pg_backend_pid()");
  ASSERT_TRUE(pid.ok() && pid->Next());
  RunSql(uri_, absl::StrCat("SELECT pg_terminate_backend(", pid->Int(), ", 10000)"));
  EXPECT_FALSE(connection.Usable());
  const absl::Status status = connection.Run("SELECT 1").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(ReasonOf(status), "STORE_DOWN");
  EXPECT_EQ(ReasonOf(connection.Run("SELECT 1").status()), "STORE_DOWN");
}

TEST_F(PostgresDbTest, ADatabaseThatDoesNotAnswerIsGivenUp) {
  PgConnection connection =
      Connect({.statement = absl::Milliseconds(100), .answer = absl::Milliseconds(200)});
  auto pid = connection.Run("SELECT pg_backend_pid()");
  ASSERT_TRUE(pid.ok() && pid->Next());
  const pid_t backend = static_cast<pid_t>(pid->Int());
  ASSERT_EQ(kill(backend, SIGSTOP), 0);
  const absl::Status status = connection.Run("SELECT 1").status();
  kill(backend, SIGCONT);
  EXPECT_EQ(ReasonOf(status), "STORE_DOWN");
  EXPECT_THAT(std::string(status.message()), HasSubstr("does not answer"));
  EXPECT_FALSE(connection.Usable());
}

TEST_F(PostgresDbTest, TooManyConnectionsAreUnavailable) {
  RunSql(uri_, "ALTER ROLE guarded CONNECTION LIMIT 0");
  TempDir dir;
  const std::string uri =
      PostgresServer::With(PostgresServer::WithRole(uri_, PostgresServer::kGuardedRole),
                           "passfile=" + PassFile(dir, PostgresServer::kPassword));
  const absl::Status status = PgConnection::Connect(uri, {}).status();
  RunSql(uri_, "ALTER ROLE guarded CONNECTION LIMIT -1");
  EXPECT_EQ(ReasonOf(status), "STORE_DOWN");
  EXPECT_THAT(std::string(status.message()), HasSubstr("too many connections"));
  EXPECT_TRUE(PgConnection::Connect(uri, {}).ok());
}

TEST_F(PostgresDbTest, NoErrorRepeatsAPassword) {
  TempDir dir;
  const std::string guarded = PostgresServer::WithRole(uri_, PostgresServer::kGuardedRole);
  const std::string wrong = PostgresServer::With(guarded, "passfile=" + PassFile(dir, "sesame"));
  const absl::Status refused = PostgresStore::Open(wrong).status();
  EXPECT_EQ(ReasonOf(refused), "STORE_DOWN");
  EXPECT_THAT(
      std::string(refused.message()),
      testing::AllOf(HasSubstr("postgresql://guarded@"),
                     HasSubstr("password authentication failed"), Not(HasSubstr("sesame"))));
}

TEST_F(PostgresDbTest, ADatabaseThatIsNotThereIsNamedInOneLine) {
  const absl::Status status =
      PgConnection::Connect("postgresql://u@/jobs?host=/no/such/folder", {}).status();
  EXPECT_EQ(ReasonOf(status), "STORE_DOWN");
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(HasSubstr("database postgresql://u@/no/such/folder:5432/jobs: "),
                             HasSubstr("No such file or directory"), Not(HasSubstr("\n"))));
}

TEST_F(PostgresDbTest, ServersAreNamedToTheDatabase) {
  PgConnection connection = Connect();
  auto name = connection.Run("SELECT current_setting('application_name')");
  ASSERT_TRUE(name.ok() && name->Next());
  EXPECT_EQ(name->Text(), "latentforge-server");
}

TEST_F(PostgresDbTest, AnAnswerMeansThatTheChangeIsOnDisk) {
  RunSql(uri_, "ALTER DATABASE " +
                   std::filesystem::path(uri_.substr(0, uri_.find('?'))).filename().string() +
                   " SET synchronous_commit = off");
  PgConnection connection = Connect();
  auto setting = connection.Run("SELECT current_setting('synchronous_commit')");
  ASSERT_TRUE(setting.ok() && setting->Next());
  EXPECT_EQ(setting->Text(), "on");
}

}  // namespace
}  // namespace latentforge::service

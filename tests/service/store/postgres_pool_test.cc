#include "service/store/postgres_pool.h"

#include <optional>
#include <thread>

#include "gtest/gtest.h"
#include "service/errors.h"
#include "tests/fakes/fake_clock.h"
#include "tests/service/store/postgres_server.h"

namespace latentforge::service {
namespace {

class PostgresPoolTest : public testing::Test {
 protected:
  PgPool Pool(int size, absl::Duration patience) {
    return PgPool(
        [this]() -> absl::StatusOr<PgConnection> {
          ++attempts_;
          if (down_) return StoreDownError("the test's database is away");
          return PgConnection::Connect(uri_, {});
        },
        size, patience, clock_);
  }

  const std::string uri_ = PostgresServer::Shared().NewDatabase();
  FakeClock clock_;
  int attempts_ = 0;
  bool down_ = false;
};

TEST_F(PostgresPoolTest, ConnectionsAreUsedAgain) {
  PgPool pool = Pool(2, absl::Seconds(5));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE((*pool.Borrow())->Run("SELECT 1").ok());
  EXPECT_EQ(attempts_, 1);
}

TEST_F(PostgresPoolTest, WhoAsksForMoreThanThereAreWaitsAndGivesUp) {
  PgPool pool = Pool(1, absl::Milliseconds(30));
  std::optional<PgPool::Loan> loan = *pool.Borrow();
  const absl::Status none = pool.Borrow().status();
  EXPECT_EQ(none.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(none), "STORE_DOWN");
  EXPECT_EQ(none.message(), "all 1 connections to the database were in use for 30ms");
  loan.reset();
  EXPECT_TRUE(pool.Borrow().ok());
}

TEST_F(PostgresPoolTest, AWaiterGetsWhatComesBack) {
  PgPool pool = Pool(1, absl::Seconds(30));
  std::optional<PgPool::Loan> loan = *pool.Borrow();
  std::thread waiter([&] { EXPECT_TRUE(pool.Borrow().ok()); });
  loan.reset();
  waiter.join();
  EXPECT_EQ(attempts_, 1);
}

TEST_F(PostgresPoolTest, ABrokenConnectionIsReplaced) {
  PgPool pool = Pool(1, absl::Seconds(5));
  int64_t pid = 0;
  {
    auto loan = pool.Borrow();
    auto rows = (*loan)->Run("SELECT pg_backend_pid()");
    ASSERT_TRUE(rows.ok() && rows->Next());
    pid = rows->Int();
  }
  RunSql(uri_, absl::StrCat("SELECT pg_terminate_backend(", pid, ", 10000)"));
  EXPECT_TRUE((*pool.Borrow())->Run("SELECT 1").ok());
  EXPECT_EQ(attempts_, 2);
}

TEST_F(PostgresPoolTest, AnOpenTransactionDoesNotComeBack) {
  PgPool pool = Pool(1, absl::Seconds(5));
  ASSERT_TRUE((*pool.Borrow())->Execute("BEGIN").ok());
  EXPECT_TRUE((*pool.Borrow())->Usable());
  EXPECT_EQ(attempts_, 2);
}

TEST_F(PostgresPoolTest, AttemptsToConnectPauseLongerAndLonger) {
  PgPool pool = Pool(4, absl::Seconds(5));
  down_ = true;
  std::vector<int> attempts;
  for (const int milliseconds : {0, 99, 1, 199, 1, 399, 1}) {
    clock_.Advance(absl::Milliseconds(milliseconds));
    const absl::Status status = pool.Borrow().status();
    EXPECT_EQ(ReasonOf(status), "STORE_DOWN");
    EXPECT_EQ(status.message(), "the test's database is away");
    attempts.push_back(attempts_);
  }
  EXPECT_EQ(attempts, (std::vector<int>{1, 1, 2, 2, 3, 3, 4}));
  for (int i = 0; i < 10; ++i) {
    clock_.Advance(absl::Seconds(5));
    pool.Borrow().status().IgnoreError();
  }
  EXPECT_EQ(attempts_, 14);  // never longer than five seconds
  down_ = false;
  EXPECT_FALSE(pool.Borrow().ok());
  clock_.Advance(absl::Seconds(5));
  EXPECT_TRUE(pool.Borrow().ok());
  EXPECT_EQ(attempts_, 15);
}

}  // namespace
}  // namespace latentforge::service

#include "service/store/postgres_pool.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace latentforge::service {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(5);

absl::Duration PauseAfter(int failures) {
  return std::min(kFirstPause * (1 << std::clamp(failures - 1, 0, 10)), kLongestPause);
}

}  // namespace

PgPool::Loan::Loan(Loan&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), connection_(std::move(other.connection_)) {}

PgPool::Loan::~Loan() {
  if (pool_ != nullptr) pool_->Return(std::move(connection_));
}

void PgPool::Return(PgConnection connection) {
  const bool usable = connection.Usable();
  absl::MutexLock lock(&mutex_);
  lent_ -= 1;
  if (usable) idle_.push_back(std::move(connection));
}

absl::StatusOr<PgPool::Loan> PgPool::Borrow() {
  {
    absl::MutexLock lock(&mutex_);
    if (!mutex_.AwaitWithTimeout(absl::Condition(this, &PgPool::HasRoom), patience_)) {
      return StoreDownError(absl::StrCat("all ", size_,
                                         " connections to the database were in use for ",
                                         absl::FormatDuration(patience_)));
    }
    lent_ += 1;
  }
  absl::StatusOr<PgConnection> found = Find();
  if (found.ok()) return Loan(*this, *std::move(found));
  absl::MutexLock lock(&mutex_);
  lent_ -= 1;
  return found.status();
}

absl::StatusOr<PgConnection> PgPool::Find() {
  {
    absl::MutexLock lock(&mutex_);
    while (!idle_.empty()) {
      PgConnection connection = std::move(idle_.back());
      idle_.pop_back();
      if (connection.Usable()) return connection;
    }
    if (const absl::Status allowed = MayConnect(); !allowed.ok()) return allowed;
  }
  absl::StatusOr<PgConnection> fresh = connect_();
  Connected(fresh.status());
  return fresh;
}

absl::Status PgPool::MayConnect() {
  if (failures_ == 0) return absl::OkStatus();
  const absl::Duration now = clock_.Monotonic();
  if (now < next_attempt_) return failure_;
  next_attempt_ = now + kLongestPause;  // this attempt is the only one until it has ended
  return absl::OkStatus();
}

void PgPool::Connected(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  failures_ = status.ok() ? 0 : failures_ + 1;
  failure_ = status;
  next_attempt_ = clock_.Monotonic() + PauseAfter(failures_);
}

}  // namespace latentforge::service

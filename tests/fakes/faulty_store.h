// A store that can be away, over a real one.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "service/errors.h"
#include "service/store/store.h"

namespace latentforge::service {

// Passes every call on, and counts it, unless it is told to be away: then calls fail
// with UNAVAILABLE STORE_DOWN and change nothing. Safe for concurrent use once Use was
// called. Borrows the store below.
class FaultyStore final : public Store {
 public:
  void Use(Store& below) { below_ = &below; }
  void set_shared(bool shared) { shared_ = shared; }
  void set_away(bool away) { away_ = away; }
  // Called with each method's name before it is passed on. Set while nobody calls.
  void set_before(std::function<void(const std::string&)> before) { before_ = std::move(before); }

  // Calls of the method since the last time that this was asked.
  int TakeCalls(const std::string& method) {
    absl::MutexLock lock(&mutex_);
    return std::exchange(calls_[method], 0);
  }

  bool shared() const override { return shared_; }
  absl::StatusOr<absl::Time> Now() override { return Pass("Now", &Store::Now); }
  absl::StatusOr<JobRecord> Create(const NewJob& job) override {
    return Pass("Create", &Store::Create, job);
  }
  absl::StatusOr<JobRecord> Get(absl::string_view id) override {
    return Pass("Get", &Store::Get, id);
  }
  absl::StatusOr<std::optional<StoredRequest>> FindRequest(absl::string_view tenant,
                                                           absl::string_view request_id) override {
    return Pass("FindRequest", &Store::FindRequest, tenant, request_id);
  }
  absl::StatusOr<std::vector<JobRecord>> List(const JobQuery& query) override {
    return Pass("List", &Store::List, query);
  }
  absl::StatusOr<JobRecord> Commit(const JobUpdate& update) override {
    return Pass("Commit", &Store::Commit, update);
  }
  absl::StatusOr<std::optional<JobRecord>> Claim(const ClaimQuery& query,
                                                 const DecideClaim& decide) override {
    return Pass("Claim", &Store::Claim, query, decide);
  }
  absl::StatusOr<std::vector<JobRecord>> LeasesEndingBy(absl::Time time) override {
    return Pass("LeasesEndingBy", &Store::LeasesEndingBy, time);
  }
  absl::StatusOr<std::vector<JobRecord>> DeadlinesBy(absl::Time time) override {
    return Pass("DeadlinesBy", &Store::DeadlinesBy, time);
  }
  absl::StatusOr<std::vector<v1::JobEvent>> Events(absl::string_view id, int64_t after,
                                                   int limit) override {
    return Pass("Events", &Store::Events, id, after, limit);
  }
  absl::Status CompactEvents(const EventCompaction& compaction) override {
    return Pass("CompactEvents", &Store::CompactEvents, compaction);
  }
  absl::StatusOr<int64_t> CompactedThrough(absl::string_view id) override {
    return Pass("CompactedThrough", &Store::CompactedThrough, id);
  }
  absl::StatusOr<std::vector<EventSpan>> LongHistories(int64_t events, int limit) override {
    return Pass("LongHistories", &Store::LongHistories, events, limit);
  }
  absl::StatusOr<std::map<std::string, int64_t>> LastSequences(
      const std::vector<std::string>& ids) override {
    return Pass("LastSequences", &Store::LastSequences, ids);
  }
  absl::StatusOr<std::vector<AttemptRecord>> Attempts(absl::string_view id, int32_t after,
                                                      int limit) override {
    return Pass("Attempts", &Store::Attempts, id, after, limit);
  }
  absl::StatusOr<LogAppended> AppendLogs(const LogAppend& append) override {
    return Pass("AppendLogs", &Store::AppendLogs, append);
  }
  absl::StatusOr<std::vector<LogRecord>> Logs(const LogQuery& query) override {
    return Pass("Logs", &Store::Logs, query);
  }
  absl::StatusOr<int64_t> LogTail(absl::string_view id, int32_t attempt, int lines) override {
    return Pass("LogTail", &Store::LogTail, id, attempt, lines);
  }
  absl::Status Delete(const JobDeletion& deletion) override {
    return Pass("Delete", &Store::Delete, deletion);
  }
  absl::StatusOr<std::vector<JobRecord>> ExpiredBy(absl::Time time, int limit) override {
    return Pass("ExpiredBy", &Store::ExpiredBy, time, limit);
  }
  absl::Status PurgeTombstones(absl::Time time, int limit) override {
    return Pass("PurgeTombstones", &Store::PurgeTombstones, time, limit);
  }
  absl::StatusOr<StoreStats> Stats() override { return Pass("Stats", &Store::Stats); }
  absl::StatusOr<TenantUse> Use(absl::string_view tenant) override {
    return Pass("Use", &Store::Use, tenant);
  }
  absl::StatusOr<std::vector<std::string>> WaitingNeeds(absl::string_view tenant) override {
    return Pass("WaitingNeeds", &Store::WaitingNeeds, tenant);
  }
  absl::StatusOr<std::string> GetOrPutSecret(absl::string_view name,
                                             absl::string_view fresh) override {
    return Pass("GetOrPutSecret", &Store::GetOrPutSecret, name, fresh);
  }

 private:
  template <typename Result, typename... Parameters, typename... Arguments>
  Result Pass(const char* name, Result (Store::*method)(Parameters...), Arguments&&... arguments) {
    {
      absl::MutexLock lock(&mutex_);
      ++calls_[name];
    }
    if (before_) before_(name);
    if (away_) {
      return WithRetryDelay(
          MakeError(absl::StatusCode::kUnavailable, kStoreDown, "the store is away"),
          absl::Seconds(1));
    }
    return (below_->*method)(std::forward<Arguments>(arguments)...);
  }

  Store* below_ = nullptr;
  std::function<void(const std::string&)> before_;
  std::atomic<bool> shared_ = false;
  std::atomic<bool> away_ = false;
  absl::Mutex mutex_;
  std::map<std::string, int> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace latentforge::service

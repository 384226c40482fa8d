// A server without its network, and arbitrary fields of calls to it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "fuzzer/FuzzedDataProvider.h"
#include "service/attempts.h"
#include "service/job_name.h"
#include "service/jobs.h"
#include "service/log_intake.h"
#include "service/log_looks.h"
#include "service/retention.h"
#include "service/scheduler.h"
#include "service/store/sqlite_store.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/field_spec_checker.h"
#include "tests/service/job_probe.h"

namespace latentforge::service {

// Half of the fields are of things that exist, so that calls get far. Borrows.
class FuzzedServer {
 public:
  FuzzedServer(SqliteStore& store, FuzzedDataProvider& input)
      : input_(input), store_(store), probe_(store) {
    engine_.set_on_queued([this] { wakeup_.Poke(); });
  }

 protected:
  static constexpr int kMostJobs = 4;

  const Identity& Caller() { return kCallers[input_.ConsumeIntegralInRange<size_t>(0, 2)]; }

  // Strings that are not UTF-8 do not come over the wire.
  std::string Text() {
    std::string text = input_.ConsumeRandomLengthString(16);
    if (WriteJson(text).find("\xEF\xBF\xBD") != std::string::npos) text = absl::CHexEscape(text);
    // At times longer than the 80 bytes that errors quote, which then end within a character.
    return input_.ConsumeIntegralInRange(0, 7) != 0 ? text
                                                    : std::string(79, 'a') + "\xC3\xA9" + text;
  }

  std::string JobNameOrText() {
    if (input_.ConsumeProbability<float>() < 0.1f) return Text();
    return JobName(absl::StrCat("j", input_.ConsumeIntegralInRange(1, kMostJobs)));
  }

  std::string Etag(const std::string& job) {
    return input_.ConsumeProbability<float>() < 0.8f ? "" : probe_.EtagOf(job);
  }

  void SetDuration(google::protobuf::Duration* duration) {
    const bool any = input_.ConsumeBool();
    duration->set_seconds(any ? input_.ConsumeIntegral<int64_t>()
                              : input_.ConsumeIntegralInRange<int64_t>(0, 3600));
    if (any) duration->set_nanos(input_.ConsumeIntegral<int32_t>());
  }

  void Tick() { probe_.Check(scheduler_.Tick()); }

  // Longer than any lease.
  void Expire() {
    clock_.Advance(absl::Hours(1));
    Tick();
  }

  inline static const Identity kCallers[] = {{"alice", "default", Role::kUser},
                                             {"bob", "search", Role::kUser},
                                             {"root", "default", Role::kAdmin}};
  // Whose every lease is.
  inline static const Identity kWorker = {"w1", "default", Role::kWorker};
  FuzzedDataProvider& input_;
  SqliteStore& store_;
  JobProbe probe_;
  FakeClock clock_;
  WatchHub hub_;
  Observer observer_;
  Wakeup wakeup_;
  const FieldSpecChecker checker_;
  int last_id_ = 0;
  JobEngine engine_{JobEngine::Parts{store_, hub_, observer_, clock_}, StatePolicy()};
  Jobs jobs_{engine_, checker_, PageTokenCodec("key"),
             JobsOptions{3, [this] { return absl::StrCat("j", ++last_id_); }}};
  Attempts attempts_{store_, PageTokenCodec("key")};
  Scheduler scheduler_{engine_, wakeup_, PageTokenCodec("key"),
                       SchedulerOptions{.version = "0.1.0"}};
  Retention retention_{engine_, absl::Hours(1)};
  LogIntake logs_{engine_, {}};
  LogLooks looks_{store_, clock_, absl::Milliseconds(500)};
};

}  // namespace latentforge::service

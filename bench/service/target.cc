#include "bench/service/target.h"

#include <unistd.h>

#include <chrono>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace latentforge::bench {
namespace {

// One after the other on its own line; several lines share what is left to do.
class Submitter {
 public:
  Submitter(Target& target, int64_t count, Latencies& latencies,
            const std::function<void(const std::string&)>& created)
      : target_(target), count_(count), latencies_(latencies), created_(created) {}

  void StartLine(int64_t line) {
    absl::MutexLock lock(&mutex_);
    ++lines_;
    Next(line);
  }

  void Wait() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](int* lines) { return *lines == 0; }, &lines_));
  }

 private:
  struct Call {
    grpc::ClientContext context;
    v1::CreateJobRequest request;
    v1::CreateJobResponse response;
    absl::Time begin;
  };

  void Next(int64_t line) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (started_ == count_) {
      --lines_;
      return;
    }
    ++started_;
    auto call = std::make_shared<Call>();
    call->context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
    call->request = target_.NewJob();
    call->begin = absl::Now();
    target_.jobs(line).async()->CreateJob(
        &call->context, &call->request, &call->response,
        [this, call, line](const grpc::Status& status) { Done(*call, status, line); });
  }

  void Done(const Call& call, const grpc::Status& status, int64_t line) {
    if (status.ok()) {
      latencies_.Add(absl::Now() - call.begin);
      if (created_) created_(call.response.job().name());
    } else {
      latencies_.AddError();
    }
    absl::MutexLock lock(&mutex_);
    Next(line);
  }

  Target& target_;
  const int64_t count_;
  Latencies& latencies_;
  const std::function<void(const std::string&)>& created_;
  absl::Mutex mutex_;
  int64_t started_ ABSL_GUARDED_BY(mutex_) = 0;
  int lines_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

Target::Target(const std::string& address, std::filesystem::path folder, int connections)
    : folder_(std::move(folder)),
      run_(absl::StrCat(getpid(), "-", absl::ToUnixMicros(absl::Now()))) {
  for (int i = 0; i < connections; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto channel =
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
    jobs_.push_back(v1::JobService::NewStub(channel));
    workers_.push_back(v1::WorkerService::NewStub(channel));
  }
}

v1::CreateJobRequest Target::NewJob() {
  const int64_t number = next_++;
  v1::CreateJobRequest request;
  request.set_request_id(absl::StrCat(run_, "-", number));
  v1::JobSpec& spec = *request.mutable_spec();
  spec.mutable_source()->set_uri((folder_ / "model").string());
  spec.mutable_budget()->set_kv_budget(0.5);
  spec.mutable_calibration()->add_corpora()->set_uri((folder_ / "text.txt").string());
  spec.mutable_output()->set_uri((folder_ / absl::StrCat("out-", run_, "-", number)).string());
  return request;
}

absl::Duration Submit(Target& target, int64_t count, int concurrency, Latencies& latencies,
                      const std::function<void(const std::string&)>& created) {
  Submitter submitter(target, count, latencies, created);
  const absl::Time begin = absl::Now();
  for (int line = 0; line < concurrency; ++line) submitter.StartLine(line);
  submitter.Wait();
  return absl::Now() - begin;
}

}  // namespace latentforge::bench

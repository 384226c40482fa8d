#include "tests/faults/watcher.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/faults/servers.h"

namespace latentforge::faults {

WatcherPool::WatcherPool(const std::string& address, size_t connections) {
  for (size_t i = 0; i < connections; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
    stubs_.push_back(v1::JobService::NewStub(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments)));
  }
}

// One stream; deletes itself when it has ended.
class Watcher::Stream final : public grpc::ClientReadReactor<v1::WatchJobResponse> {
 public:
  explicit Stream(Watcher& watcher) : watcher_(watcher) {
    Introduce(context_, "", absl::Minutes(2));
    context_.set_wait_for_ready(true);
    request_.set_name(watcher.job_);
    request_.set_from_sequence(watcher.last_);
    watcher.stub_.async()->WatchJob(&context_, &request_, this);
    StartRead(&message_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    watcher_.Take(message_);
    StartRead(&message_);
  }

  void OnDone(const grpc::Status& status) override {
    const std::unique_ptr<Stream> self(this);
    watcher_.Ended(status);
  }

 private:
  Watcher& watcher_;
  grpc::ClientContext context_;
  v1::WatchJobRequest request_;
  v1::WatchJobResponse message_;
};

Watcher::Watcher(const WatcherPool& pool, size_t number, std::string job)
    : stub_(pool.stub(number)), job_(std::move(job)) {
  Open();
}

Watcher::~Watcher() { Wait(); }

std::string Watcher::Wait() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&done_));
  return problem_;
}

void Watcher::Open() {
  ++streams_;
  std::make_unique<Stream>(*this).release();  // its own from here on
}

void Watcher::Take(const v1::WatchJobResponse& message) {
  if (!message.has_event()) return;
  const int64_t expected = last_ + 1;
  last_ = message.event().sequence();
  if (last_ == expected) return;
  absl::MutexLock lock(&mutex_);
  problem_ = absl::StrCat(job_, ": event ", message.event().sequence(), " instead of ", expected);
}

void Watcher::Ended(const grpc::Status& status) {
  if (!status.ok() && status.error_code() == grpc::StatusCode::UNAVAILABLE) return Open();
  absl::MutexLock lock(&mutex_);
  if (!status.ok()) problem_ = absl::StrCat(job_, ": ", status.error_message());
  done_ = true;
}

}  // namespace latentforge::faults

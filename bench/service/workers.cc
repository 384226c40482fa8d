#include "bench/service/workers.h"

#include <chrono>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/version.h"
#include "grpcpp/client_context.h"

namespace latentforge::bench {

IdleWorkers::IdleWorkers(Target& target, int count, Leased leased)
    : target_(target), leased_(std::move(leased)), waiting_(static_cast<size_t>(count)) {
  for (int i = 0; i < count; ++i) threads_.emplace_back([this, i] { Run(i); });
}

IdleWorkers::~IdleWorkers() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (grpc::ClientContext* context : waiting_) {
      if (context != nullptr) context->TryCancel();
    }
  }
  for (std::thread& thread : threads_) thread.join();
}

// Notes the call that the destructor must cancel; false when it has begun.
bool IdleWorkers::Begin(int number, grpc::ClientContext* context) {
  absl::MutexLock lock(&mutex_);
  waiting_[static_cast<size_t>(number)] = context;
  return !stopping_;
}

void IdleWorkers::Run(int number) {
  v1::AcquireLeaseRequest acquire;
  acquire.mutable_worker()->set_name(absl::StrCat("bench-", number));
  acquire.mutable_worker()->set_version(kVersion);
  acquire.mutable_worker()->set_slots(1);
  acquire.mutable_wait()->set_seconds(10);
  while (true) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    v1::AcquireLeaseResponse granted;
    if (!Begin(number, &context)) return;
    const grpc::Status status = target_.workers(number).AcquireLease(&context, acquire, &granted);
    if (!Begin(number, nullptr)) return;
    if (!status.ok()) {
      std::fprintf(stderr, "AcquireLease: %s\n", status.error_message().c_str());
      return;
    }
    if (!granted.has_lease() || !leased_(granted.lease())) continue;
    grpc::ClientContext end;
    v1::CompleteAttemptRequest complete;
    *complete.mutable_lease() = granted.lease();
    complete.mutable_result()->set_artifact_uri("file:///nowhere");
    v1::CompleteAttemptResponse completed;
    target_.workers(number).CompleteAttempt(&end, complete, &completed);
  }
}

}  // namespace latentforge::bench

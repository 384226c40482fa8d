// An in-process JobService that a test scripts.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/server.h"
#include "latentforge/v1/job_service.grpc.pb.h"

namespace latentforge::client {

// One answer to WatchJob: messages, then a status.
struct WatchScript {
  std::vector<v1::WatchJobResponse> messages;
  grpc::Status status;
};

// Answers from queues, and keeps what was asked. Safe for concurrent use.
class FakeJobService final : public v1::JobService::Service {
 public:
  FakeJobService();
  ~FakeJobService() override;

  std::shared_ptr<grpc::Channel> channel();

  // Statuses of the next CreateJob and GetJob calls; OK when the queue is empty.
  void AddStatus(const grpc::Status& status);
  void AddWatch(WatchScript script);

  std::vector<v1::CreateJobRequest> created() const;
  std::vector<v1::WatchJobRequest> watched() const;
  bool every_call_had_a_deadline() const;

  grpc::Status CreateJob(grpc::ServerContext* context, const v1::CreateJobRequest* request,
                         v1::CreateJobResponse* response) override;
  grpc::Status GetJob(grpc::ServerContext* context, const v1::GetJobRequest* request,
                      v1::GetJobResponse* response) override;
  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::WatchJobResponse>* writer) override;

 private:
  grpc::Status Next(grpc::ServerContext* context) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::deque<grpc::Status> statuses_ ABSL_GUARDED_BY(mutex_);
  std::deque<WatchScript> watches_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::CreateJobRequest> created_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::WatchJobRequest> watched_ ABSL_GUARDED_BY(mutex_);
  bool deadlines_ ABSL_GUARDED_BY(mutex_) = true;
  std::unique_ptr<grpc::Server> server_;
};

v1::WatchJobResponse SnapshotOf(v1::JobState state, int64_t sequence);
v1::WatchJobResponse StateEvent(v1::JobState state, int64_t sequence);
v1::WatchJobResponse PercentEvent(double percent, int64_t sequence);

}  // namespace latentforge::client

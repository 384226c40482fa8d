#include "tests/client/fake_job_service.h"

#include <utility>

#include "grpcpp/server_builder.h"

namespace latentforge::client {

FakeJobService::FakeJobService() {
  grpc::ServerBuilder builder;
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
}

FakeJobService::~FakeJobService() {
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
}

std::shared_ptr<grpc::Channel> FakeJobService::channel() { return server_->InProcessChannel({}); }

void FakeJobService::AddStatus(const grpc::Status& status) {
  absl::MutexLock lock(&mutex_);
  statuses_.push_back(status);
}

void FakeJobService::AddWatch(WatchScript script) {
  absl::MutexLock lock(&mutex_);
  watches_.push_back(std::move(script));
}

std::vector<v1::CreateJobRequest> FakeJobService::created() const {
  absl::MutexLock lock(&mutex_);
  return created_;
}

std::vector<v1::WatchJobRequest> FakeJobService::watched() const {
  absl::MutexLock lock(&mutex_);
  return watched_;
}

bool FakeJobService::every_call_had_a_deadline() const {
  absl::MutexLock lock(&mutex_);
  return deadlines_;
}

grpc::Status FakeJobService::Next(grpc::ServerContext* context) {
  if (context->deadline() == std::chrono::system_clock::time_point::max()) deadlines_ = false;
  if (statuses_.empty()) return grpc::Status::OK;
  const grpc::Status status = statuses_.front();
  statuses_.pop_front();
  return status;
}

grpc::Status FakeJobService::CreateJob(grpc::ServerContext* context,
                                       const v1::CreateJobRequest* request,
                                       v1::CreateJobResponse* response) {
  absl::MutexLock lock(&mutex_);
  created_.push_back(*request);
  response->mutable_job()->set_name("jobs/1");
  return Next(context);
}

grpc::Status FakeJobService::GetJob(grpc::ServerContext* context, const v1::GetJobRequest* request,
                                    v1::GetJobResponse* response) {
  absl::MutexLock lock(&mutex_);
  response->mutable_job()->set_name(request->name());
  return Next(context);
}

grpc::Status FakeJobService::WatchJob(grpc::ServerContext*, const v1::WatchJobRequest* request,
                                      grpc::ServerWriter<v1::WatchJobResponse>* writer) {
  WatchScript script;
  {
    absl::MutexLock lock(&mutex_);
    watched_.push_back(*request);
    if (watches_.empty()) return {grpc::StatusCode::INTERNAL, "no script for this watch"};
    script = std::move(watches_.front());
    watches_.pop_front();
  }
  for (const v1::WatchJobResponse& message : script.messages) writer->Write(message);
  return script.status;
}

v1::WatchJobResponse SnapshotOf(v1::JobState state, int64_t sequence) {
  v1::WatchJobResponse message;
  message.mutable_snapshot()->mutable_job()->set_name("jobs/1");
  message.mutable_snapshot()->mutable_job()->mutable_status()->set_state(state);
  message.mutable_snapshot()->set_sequence(sequence);
  return message;
}

v1::WatchJobResponse StateEvent(v1::JobState state, int64_t sequence) {
  v1::WatchJobResponse message;
  message.mutable_event()->set_sequence(sequence);
  message.mutable_event()->mutable_state_changed()->set_state(state);
  return message;
}

v1::WatchJobResponse PercentEvent(double percent, int64_t sequence) {
  v1::WatchJobResponse message;
  message.mutable_event()->set_sequence(sequence);
  message.mutable_event()->mutable_progress()->set_percent(percent);
  message.mutable_event()->mutable_progress()->set_phase(v1::PHASE_CALIBRATING);
  return message;
}

}  // namespace latentforge::client

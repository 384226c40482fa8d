#include "tests/faults/clients.h"

#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace latentforge::faults {
namespace {

constexpr absl::Duration kPause = absl::Milliseconds(20);

// What a compute process does, for fake_convert: notes itself, works a while, publishes.
constexpr char kWork[] =
    R"({"append":"@/pids","text":"$PID"},)"
    R"({"event":{"phaseStarted":{"phase":"PHASE_CALIBRATING"}}},{"sleep_ms":#},)"
    R"({"event":{"log":{"severity":"SEVERITY_INFO","text":"half of attempt $ATTEMPT"}}},)"
    R"({"event":{"progress":{"phase":"PHASE_CALIBRATING","percent":50}}},{"sleep_ms":#},)"
    R"({"event":{"phaseFinished":{"phase":"PHASE_CALIBRATING","seconds":1}}},)"
    R"({"publish":"%","log":"%.log"},{"sleep_ms":20},)"
    R"({"event":{"result":{"artifactUri":"file://%"}}})";
constexpr char kCrash[] = R"({"append":"@/pids","text":"$PID"},{"sleep_ms":30},{"signal":11})";
constexpr char kUserError[] =
    R"({"event":{"error":{"reason":"MALFORMED_CHECKPOINT","message":"tensor x has NaN",)"
    R"("errorClass":"ERROR_CLASS_USER"}}},{"exit":1})";

}  // namespace

Clients::Clients(const ClientOptions& options, Recorder& recorder)
    : options_(options), recorder_(recorder) {
  for (int i = 0; i < options_.submitters; ++i) threads_.emplace_back([this, i] { Submit(i); });
  for (int i = 0; i < options_.watchers; ++i) threads_.emplace_back([this, i] { Watch(i); });
  threads_.emplace_back([this] { Change(); });
  threads_.emplace_back([this] { Pry(); });
}

void Clients::Stop() {
  stopping_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

const std::string& Clients::TokenOf(const std::string& tenant) const {
  size_t i = 0;
  while (options_.tenants[i].name != tenant) ++i;
  return options_.tenants[i].token;
}

v1::CreateJobRequest Clients::NewJob(const std::string& id, Random& random) const {
  const std::string out = (options_.folder / absl::StrCat("out.", id)).string();
  std::string steps = absl::StrCat("[", kWork, "]");
  if (random() % 8 == 0) steps = absl::StrCat("[", kCrash, "],", steps);
  if (random() % 16 == 0) steps = absl::StrCat("[", kUserError, "]");
  steps = absl::StrReplaceAll(
      steps,
      {{"@", options_.folder.string()}, {"%", out}, {"#", absl::StrCat(20 + random() % 150)}});
  std::ofstream(out + ".script.json") << "{\"attempts\":[" << steps << "]}";
  v1::CreateJobRequest request;
  request.set_request_id(id);
  v1::JobSpec& spec = *request.mutable_spec();
  spec.mutable_source()->set_uri((options_.folder / "model").string());
  spec.mutable_budget()->set_kv_budget(0.5);
  spec.mutable_calibration()->add_corpora()->set_uri((options_.folder / "corpus.txt").string());
  spec.mutable_output()->set_uri(out);
  return request;
}

// Sends until there is an answer, even while stopping: the history must not depend on when.
// Returns the job's name.
std::string Clients::SubmitOne(const Tenant& tenant, const v1::CreateJobRequest& request) {
  Servers servers(options_.addresses);
  recorder_.Sent(request.request_id());
  while (true) {
    v1::CreateJobResponse response;
    const grpc::Status status =
        servers.Call(&Servers::Stub::CreateJob, tenant.token, request, response);
    if (status.ok()) {
      recorder_.Seen(tenant.name, response.job().name());
      recorder_.Acknowledged(request.request_id(), {response.job().name(), tenant.name});
      return response.job().name();
    }
    if (!IsOfFault(status)) {
      ADD_FAILURE() << request.request_id() << ": " << status.error_code() << " "
                    << status.error_message();
      return "";
    }
    servers.Turn();
  }
}

void Clients::Submit(int number) {
  Random random(options_.seed * 1000 + static_cast<uint64_t>(number));
  const Tenant& tenant = options_.tenants[static_cast<size_t>(number) % options_.tenants.size()];
  Servers servers(options_.addresses);
  for (int i = 0; !stopping_; ++i) {
    const std::string id = absl::StrCat("s", options_.seed, "-", number, "-", i);
    const v1::CreateJobRequest request = NewJob(id, random);
    std::string job;
    if (random() % 3 == 0) {
      std::thread twin([&] { SubmitOne(tenant, request); });
      job = SubmitOne(tenant, request);
      twin.join();
    } else {
      job = SubmitOne(tenant, request);
    }
    // No faster than the workers for long: what waits at the end has to end soon.
    if (i % 8 == 7) recorder_.Add(Follow(servers, tenant.token, job, 0, stopping_));
    absl::SleepFor(absl::Milliseconds(50 + random() % 200));
  }
}

void Clients::Watch(int number) {
  Random random(options_.seed * 1000 + 100 + static_cast<uint64_t>(number));
  Servers servers(options_.addresses);
  while (!stopping_) {
    const KnownJob job = recorder_.PickJob(random);
    if (!job.name.empty()) {
      const int64_t from = random() % 2 == 0 ? 0 : 1;
      recorder_.Add(Follow(servers, TokenOf(job.tenant), job.name, from, stopping_));
    }
    absl::SleepFor(kPause);
  }
}

void Clients::Cancel(Servers& servers, const KnownJob& job) {
  v1::CancelJobRequest request;
  request.set_name(job.name);
  v1::CancelJobResponse response;
  const grpc::Status status =
      servers.Call(&Servers::Stub::CancelJob, TokenOf(job.tenant), request, response);
  if (status.ok()) {
    recorder_.Cancelled(job.name);
  } else if (!IsOfFault(status)) {
    ADD_FAILURE() << "cancel " << job.name << ": " << status.error_message();
  } else {
    servers.Turn();
  }
}

// Whether or not the pause was answered, the job goes on: resumes until there is an answer, even
// while stopping. One that has ended, or is about to, is refused.
void Clients::PauseAndResume(Servers& servers, const KnownJob& job, absl::Duration pause) {
  const auto check = [&](const grpc::Status& status, const char* what) {
    const bool fine = status.ok() || IsOfFault(status) ||
                      status.error_code() == grpc::StatusCode::FAILED_PRECONDITION;
    if (!fine) ADD_FAILURE() << what << " " << job.name << ": " << status.error_message();
    return status;
  };
  v1::PauseJobRequest request;
  request.set_name(job.name);
  v1::PauseJobResponse paused;
  check(servers.Call(&Servers::Stub::PauseJob, TokenOf(job.tenant), request, paused), "pause");
  absl::SleepFor(pause);
  v1::ResumeJobRequest resume;
  resume.set_name(job.name);
  v1::ResumeJobResponse resumed;
  while (IsOfFault(check(
      servers.Call(&Servers::Stub::ResumeJob, TokenOf(job.tenant), resume, resumed), "resume"))) {
    servers.Turn();
  }
}

void Clients::Change() {
  Random random(options_.seed * 1000 + 200);
  Servers servers(options_.addresses);
  while (!stopping_) {
    absl::SleepFor(absl::Milliseconds(200 + random() % 400));
    const KnownJob job = recorder_.PickJob(random);
    if (job.name.empty()) continue;
    if (random() % 2 == 0) {
      Cancel(servers, job);
    } else {
      PauseAndResume(servers, job, absl::Milliseconds(random() % 500));
    }
  }
}

// Every way to name a job, of which a tenant knows the exact name.
void Clients::PryOnce(Servers& servers, const Tenant& tenant, const std::string& job) {
  const auto expect_absent = [&](const grpc::Status& status, const char* what) {
    if (status.ok()) recorder_.Seen(tenant.name, job);
    if (status.error_code() != grpc::StatusCode::NOT_FOUND && !IsOfFault(status)) {
      ADD_FAILURE() << what << " " << job << " as " << tenant.name << ": " << status.error_code()
                    << " " << status.error_message();
    }
  };
  v1::GetJobRequest get;
  get.set_name(job);
  v1::GetJobResponse got;
  expect_absent(servers.Call(&Servers::Stub::GetJob, tenant.token, get, got), "get");
  v1::CancelJobRequest cancel;
  cancel.set_name(job);
  v1::CancelJobResponse cancelled;
  expect_absent(servers.Call(&Servers::Stub::CancelJob, tenant.token, cancel, cancelled), "cancel");
  v1::ListAttemptsRequest attempts;
  attempts.set_parent(job);
  v1::ListAttemptsResponse listed;
  expect_absent(servers.Call(&Servers::Stub::ListAttempts, tenant.token, attempts, listed),
                "attempts of");
  grpc::ClientContext context;
  Introduce(context, tenant.token, absl::Seconds(10));
  v1::WatchJobRequest watch;
  watch.set_name(job);
  const auto stream = servers.current().WatchJob(&context, watch);
  v1::WatchJobResponse message;
  if (stream->Read(&message)) recorder_.Seen(tenant.name, job);
  context.TryCancel();
  expect_absent(stream->Finish(), "watch");
}

// The jobs that a list of all of them names, on its pages.
void Clients::ListAll(Servers& servers, const Tenant& tenant) {
  v1::ListJobsRequest request;
  request.set_page_size(20);
  do {
    v1::ListJobsResponse response;
    const grpc::Status status =
        servers.Call(&Servers::Stub::ListJobs, tenant.token, request, response);
    if (!status.ok()) {
      if (!IsOfFault(status)) ADD_FAILURE() << "list: " << status.error_message();
      return servers.Turn();
    }
    for (const v1::Job& job : response.jobs()) recorder_.Seen(tenant.name, job.name());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty() && !stopping_);
}

void Clients::Pry() {
  Random random(options_.seed * 1000 + 300);
  Servers servers(options_.addresses);
  while (!stopping_) {
    absl::SleepFor(absl::Milliseconds(100 + random() % 200));
    const Tenant& tenant = options_.tenants[random() % options_.tenants.size()];
    const KnownJob job = recorder_.PickJob(random);
    if (!job.name.empty() && job.tenant != tenant.name) PryOnce(servers, tenant, job.name);
    if (random() % 4 == 0) ListAll(servers, tenant);
  }
}

}  // namespace latentforge::faults

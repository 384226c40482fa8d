#include "tests/faults/clients.h"

#include <chrono>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "grpcpp/grpcpp.h"
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

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
}

// The server is away, or was stopped in the middle of the call: gRPC's server cancels calls that
// arrive while it shuts down.
bool IsOfFault(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE ||
         status.error_code() == grpc::StatusCode::CANCELLED ||
         status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
}

}  // namespace

Clients::Clients(const ClientOptions& options, Recorder& recorder)
    : options_(options), recorder_(recorder) {
  for (int i = 0; i < options_.submitters; ++i) threads_.emplace_back([this, i] { Submit(i); });
  for (int i = 0; i < options_.watchers; ++i) threads_.emplace_back([this, i] { Watch(i); });
  threads_.emplace_back([this] { Cancel(); });
}

void Clients::Stop() {
  stopping_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

std::unique_ptr<v1::JobService::Stub> Clients::Dial() const {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  return v1::JobService::NewStub(
      grpc::CreateCustomChannel(options_.address, grpc::InsecureChannelCredentials(), arguments));
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
void Clients::SubmitOne(const std::string& request_id, const v1::CreateJobRequest& request) {
  const auto stub = Dial();
  recorder_.Sent(request_id);
  while (true) {
    grpc::ClientContext context;
    SetDeadline(context);
    v1::CreateJobResponse response;
    const grpc::Status status = stub->CreateJob(&context, request, &response);
    if (status.ok()) return recorder_.Acknowledged(request_id, response.job().name());
    if (!IsOfFault(status)) {
      ADD_FAILURE() << request_id << ": " << status.error_code() << " " << status.error_message();
      return;
    }
    absl::SleepFor(kPause);
  }
}

void Clients::Submit(int number) {
  Random random(options_.seed * 1000 + static_cast<uint64_t>(number));
  for (int i = 0; !stopping_; ++i) {
    const std::string id = absl::StrCat("s", options_.seed, "-", number, "-", i);
    const v1::CreateJobRequest request = NewJob(id, random);
    if (random() % 3 == 0) {
      std::thread twin([&] { SubmitOne(id, request); });
      SubmitOne(id, request);
      twin.join();
    } else {
      SubmitOne(id, request);
    }
    absl::SleepFor(absl::Milliseconds(50 + random() % 200));
  }
}

void Clients::WatchOne(v1::JobService::Stub& stub, const std::string& job, int64_t from) {
  Watched watched{.job = job, .from_sequence = from};
  int64_t last = from;
  bool ended = false;
  while (!ended && !stopping_) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
    v1::WatchJobRequest request;
    request.set_name(job);
    request.set_from_sequence(last);
    const auto stream = stub.WatchJob(&context, request);
    for (v1::WatchJobResponse message; stream->Read(&message);) {
      if (!message.has_event()) continue;
      last = message.event().sequence();
      watched.events.push_back(message.event());
    }
    const grpc::Status status = stream->Finish();
    ended = status.ok();
    if (!ended && !IsOfFault(status)) {
      ADD_FAILURE() << "watch of " << job << " from " << last << ": " << status.error_message();
      break;
    }
    if (!ended) absl::SleepFor(kPause);
  }
  if (ended && !watched.events.empty() && watched.events.back().has_state_changed()) {
    watched.at_end = watched.events.back().state_changed().state();
  }
  recorder_.Add(std::move(watched));
}

void Clients::Watch(int number) {
  Random random(options_.seed * 1000 + 100 + static_cast<uint64_t>(number));
  const auto stub = Dial();
  while (!stopping_) {
    const std::string job = recorder_.PickJob(random);
    if (!job.empty()) WatchOne(*stub, job, random() % 2 == 0 ? 0 : 1);
    absl::SleepFor(kPause);
  }
}

void Clients::Cancel() {
  Random random(options_.seed * 1000 + 200);
  const auto stub = Dial();
  while (!stopping_) {
    absl::SleepFor(absl::Milliseconds(300 + random() % 600));
    v1::CancelJobRequest request;
    request.set_name(recorder_.PickJob(random));
    if (request.name().empty()) continue;
    grpc::ClientContext context;
    SetDeadline(context);
    v1::CancelJobResponse response;
    const grpc::Status status = stub->CancelJob(&context, request, &response);
    if (status.ok()) {
      recorder_.Cancelled(request.name());
    } else if (!IsOfFault(status)) {
      ADD_FAILURE() << "cancel " << request.name() << ": " << status.error_message();
    }
  }
}

}  // namespace latentforge::faults

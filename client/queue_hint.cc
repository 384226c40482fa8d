#include "client/queue_hint.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/result_table.h"

namespace latentforge::client {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(10);

bool HasCuda(const v1::Worker& worker) {
  return std::any_of(worker.info().devices().begin(), worker.info().devices().end(),
                     [](const std::string& device) { return absl::StartsWith(device, "cuda"); });
}

// Empty when a worker can take the job, sooner or later.
std::string Obstacle(const v1::Job& job, const v1::ListWorkersResponse& workers) {
  if (workers.workers().empty()) return "no worker is connected";
  const std::string& device = job.spec().device();
  if (!absl::StartsWith(device, "cuda") ||
      std::any_of(workers.workers().begin(), workers.workers().end(), HasCuda)) {
    return "";
  }
  return absl::StrCat("no connected worker has CUDA, which device ", device, " needs");
}

}  // namespace

QueueHint::QueueHint(std::string address, const Clock& clock, ListWorkers workers)
    : address_(std::move(address)), clock_(clock), workers_(std::move(workers)) {}

std::optional<std::string> QueueHint::Next(const v1::Job& job) {
  if (job.status().state() != v1::JOB_STATE_QUEUED) {
    next_look_.reset();
    said_ = false;
    return std::nullopt;
  }
  const absl::Duration now = clock_.Monotonic();
  if (!next_look_.has_value()) next_look_ = now + kPatience;
  if (said_ || now < *next_look_) return std::nullopt;
  next_look_ = now + kPatience;
  const absl::StatusOr<v1::ListWorkersResponse> workers = workers_();
  // The watch itself tells of a server that is away.
  const std::string obstacle = workers.ok() ? Obstacle(job, *workers) : "";
  if (obstacle.empty()) return std::nullopt;
  said_ = true;
  const std::string server = absl::StrCat(" --server ", ShellWord(address_));
  return absl::StrCat(obstacle, ", so the job waits; start one: latentforge-worker", server,
                      "  (latentforge worker list", server, " lists them)");
}

}  // namespace latentforge::client

#include "service/queue_reason.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/queue_reason_words.h"

namespace latentforge::service {
namespace {

using Workers = std::vector<v1::WorkerInfo>;

// "1 worker", "3 workers", "3 such workers".
std::string Count(const Workers& workers, const char* such = "") {
  return absl::StrCat(workers.size(), such, workers.size() == 1 ? " worker" : " workers");
}

std::string GiB(int64_t bytes) {
  return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / (int64_t{1} << 30));
}

template <typename Test>
Workers Those(const Workers& workers, Test test) {
  Workers those;
  std::copy_if(workers.begin(), workers.end(), std::back_inserter(those), test);
  return those;
}

std::string AtLimit(const TenantRuns& runs, int64_t running, absl::string_view what,
                    absl::string_view key, int64_t limit) {
  return absl::StrCat(kTenantLimitReason, runs.tenant, " has ", running, " ", what,
                      running == 1 ? "" : "s", " running, and its ", key,
                      " in the tenants file is ", limit);
}

}  // namespace

std::string QueueReason(const Needs& needs, const Workers& workers) {
  if (workers.empty()) return "no worker is connected";
  // No slots: a worker that went on with its attempt while the server was started anew.
  const auto may_take = [&](const v1::WorkerInfo& worker) {
    return worker.slots() == 0 || Meets(worker, needs);
  };
  if (std::any_of(workers.begin(), workers.end(), may_take)) return "";
  const Workers with_device =
      Those(workers, [&](const v1::WorkerInfo& worker) { return HasDevice(worker, needs); });
  if (with_device.empty())
    return absl::StrCat("needs the device ", needs.device, ", which none of ", Count(workers),
                        " has");
  const Workers with_labels =
      Those(with_device, [&](const v1::WorkerInfo& worker) { return HasLabels(worker, needs); });
  if (with_labels.empty())
    return absl::StrCat("needs a worker with ",
                        absl::StrJoin(needs.labels, ", ", absl::PairFormatter("=")),
                        ", which none of ", Count(with_device), " is");
  const auto largest = std::max_element(with_labels.begin(), with_labels.end(),
                                        [](const v1::WorkerInfo& a, const v1::WorkerInfo& b) {
                                          return a.memory_bytes() < b.memory_bytes();
                                        });
  const bool all = with_labels.size() == workers.size();
  return absl::StrCat("needs ", GiB(needs.memory_bytes), " of memory; the largest of ",
                      Count(with_labels, all ? "" : " such"), " gives an attempt ",
                      GiB(largest->memory_bytes()));
}

std::string LimitReason(const TenantRuns& runs, const Needs& needs, const Workers& workers) {
  const TenantLimits& limits = runs.limits;
  if (limits.max_running_jobs > 0 && runs.jobs >= limits.max_running_jobs)
    return AtLimit(runs, runs.jobs, "job", "max_running_jobs", limits.max_running_jobs);
  // As a claim counts them (store/claim_choice.h), for each worker. One that has not said what
  // it is may have no GPU.
  const auto may_have = [&](const v1::WorkerInfo& worker) {
    const int gpus = GpusTaken(worker, needs);
    return gpus == 0 || runs.gpus + gpus <= limits.max_running_gpus;
  };
  const Workers able = Those(workers, [&](const v1::WorkerInfo& worker) {
    return worker.slots() == 0 || Meets(worker, needs);
  });
  if (limits.max_running_gpus == 0 || able.empty() ||
      std::any_of(able.begin(), able.end(), may_have))
    return "";
  return AtLimit(runs, runs.gpus, "GPU", "max_running_gpus", limits.max_running_gpus);
}

}  // namespace latentforge::service

#include "service/queue_reason.h"

#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

using Workers = std::vector<v1::WorkerInfo>;

constexpr int64_t kGibibyte = int64_t{1} << 30;

v1::WorkerInfo Worker(int64_t memory, const std::string& device = "cpu",
                      const std::map<std::string, std::string>& labels = {}) {
  v1::WorkerInfo worker;
  worker.set_slots(1);
  worker.add_devices(device);
  worker.set_memory_bytes(memory);
  worker.mutable_labels()->insert(labels.begin(), labels.end());
  return worker;
}

TEST(QueueReasonTest, OneWorkerThatCanTakeItIsEnough) {
  EXPECT_EQ(QueueReason({}, {Worker(kGibibyte)}), "");
  EXPECT_EQ(
      QueueReason({.memory_bytes = 4 * kGibibyte}, {Worker(kGibibyte), Worker(4 * kGibibyte)}), "");
  EXPECT_EQ(QueueReason({.memory_bytes = 4 * kGibibyte}, {Worker(kGibibyte), Worker(0)}), "");
}

TEST(QueueReasonTest, SaysWhatTheWorkersLack) {
  EXPECT_EQ(QueueReason({}, {}), "no worker is connected");
  EXPECT_EQ(QueueReason({.device = "cuda:1"}, {Worker(0), Worker(0, "cuda:0")}),
            "needs the device cuda:1, which none of 2 workers has");
  EXPECT_EQ(QueueReason({.labels = {{"disk", "nvme"}, {"zone", "a"}}},
                        {Worker(0, "cpu", {{"zone", "a"}})}),
            "needs a worker with disk=nvme, zone=a, which none of 1 worker is");
  EXPECT_EQ(QueueReason({.memory_bytes = 123 * kGibibyte / 10},
                        {Worker(8 * kGibibyte), Worker(4 * kGibibyte), Worker(2 * kGibibyte)}),
            "needs 12.3 GiB of memory; the largest of 3 workers gives an attempt 8.0 GiB");
  EXPECT_EQ(QueueReason({.device = "cuda", .memory_bytes = 12 * kGibibyte},
                        {Worker(800 * kGibibyte), Worker(8 * kGibibyte, "cuda:0")}),
            "needs 12.0 GiB of memory; the largest of 1 such worker gives an attempt 8.0 GiB");
}

TEST(QueueReasonTest, AWorkerThatHasNotSaidWhatItIsMayBeTheOne) {
  v1::WorkerInfo silent;
  silent.set_name("w");
  EXPECT_EQ(QueueReason({.device = "cuda"}, {Worker(0), silent}), "");
  TenantRuns runs{.tenant = "search", .gpus = 1};
  runs.limits.max_running_gpus = 1;
  EXPECT_EQ(LimitReason(runs, {}, {Worker(0, "cuda:0"), silent}), "");
}

TEST(LimitReasonTest, NamesTheLimitItsUseAndItsSetting) {
  TenantRuns runs{.tenant = "search", .jobs = 2, .gpus = 1};
  const Workers both = {Worker(0), Worker(0, "cuda:0")};
  EXPECT_EQ(LimitReason(runs, {}, both), "") << "no limits";
  runs.limits.max_running_jobs = 3;
  runs.limits.max_running_gpus = 2;
  EXPECT_EQ(LimitReason(runs, {.device = "cuda"}, both), "");
  runs.limits.max_running_gpus = 1;
  EXPECT_EQ(LimitReason(runs, {.device = "cuda"}, both),
            "tenant search has 1 GPU running, and its max_running_gpus in the tenants file is 1");
  EXPECT_EQ(LimitReason(runs, {}, both), "") << "the worker without a GPU may take it";
  EXPECT_EQ(LimitReason(runs, {}, {Worker(0, "cuda:0")}),
            "tenant search has 1 GPU running, and its max_running_gpus in the tenants file is 1");
  EXPECT_EQ(LimitReason(runs, {.device = "cuda"}, {}), "") << "QueueReason's to tell";
  runs.limits.max_running_jobs = 2;
  EXPECT_EQ(LimitReason(runs, {.device = "cuda"}, both),
            "tenant search has 2 jobs running, and its max_running_jobs in the tenants file is 2");
}

}  // namespace
}  // namespace latentforge::service

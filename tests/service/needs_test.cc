#include "service/needs.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

Needs Of(const std::string& device, int64_t memory,
         const std::map<std::string, std::string>& selector = {}) {
  v1::JobSpec spec;
  spec.set_device(device);
  spec.mutable_worker_selector()->insert(selector.begin(), selector.end());
  v1::Estimate estimate;
  estimate.set_peak_memory_bytes(memory);
  return NeedsOf(spec, estimate);
}

v1::WorkerInfo Worker(const std::vector<std::string>& devices, int64_t memory = 0,
                      const std::map<std::string, std::string>& labels = {}) {
  v1::WorkerInfo worker;
  for (const std::string& device : devices) worker.add_devices(device);
  worker.set_memory_bytes(memory);
  worker.mutable_labels()->insert(labels.begin(), labels.end());
  return worker;
}

TEST(NeedsTest, OneTextForEachValue) {
  EXPECT_EQ(NeedsKey(Of("auto", 0)), "");
  EXPECT_EQ(NeedsKey(Of("auto", kGiB)), "1073741824");
  EXPECT_EQ(NeedsKey(Of("cuda:1", kGiB, {{"zone", "a"}, {"disk", "nvme"}})),
            "cuda:1 1073741824 disk=nvme zone=a");
  for (const Needs& needs : {Of("", 0), Of("cpu", 5 * kGiB), Of("cuda", 0, {{"12", "34"}})})
    EXPECT_EQ(ParseNeedsKey(NeedsKey(needs)), needs) << NeedsKey(needs);
}

TEST(NeedsTest, JobsOfAboutOneSizeNeedTheSame) {
  for (const int64_t bytes : {int64_t{1}, int64_t{127}, 3 * kGiB + 1, 12 * kGiB + 300'000'000}) {
    const int64_t rounded = Of("auto", bytes).memory_bytes;
    EXPECT_GE(rounded, bytes);
    EXPECT_LE(static_cast<double>(rounded), static_cast<double>(bytes) * (1 + 1.0 / 64) + 1);
    EXPECT_EQ(Of("auto", rounded).memory_bytes, rounded);
  }
  EXPECT_EQ(Of("auto", 12 * kGiB + 1), Of("auto", 12 * kGiB + 2));
  EXPECT_EQ(Of("auto", std::numeric_limits<int64_t>::max()).memory_bytes,
            std::numeric_limits<int64_t>::max());
}

TEST(NeedsTest, AWorkerMustHaveTheDevice) {
  const v1::WorkerInfo cpu = Worker({"cpu"});
  const v1::WorkerInfo gpu = Worker({"cpu", "cuda:0"});
  for (const char* device : {"", "auto", "cpu"}) {
    EXPECT_TRUE(Meets(cpu, Of(device, 0))) << device;
    EXPECT_TRUE(Meets(gpu, Of(device, 0))) << device;
  }
  EXPECT_FALSE(Meets(cpu, Of("cuda", 0)));
  EXPECT_TRUE(Meets(gpu, Of("cuda", 0)));
  EXPECT_TRUE(Meets(gpu, Of("cuda:0", 0)));
  EXPECT_FALSE(Meets(gpu, Of("cuda:1", 0)));
}

TEST(NeedsTest, AWorkerMustHaveTheMemoryUnlessItDoesNotSay) {
  EXPECT_TRUE(Meets(Worker({"cpu"}, 8 * kGiB), Of("auto", 8 * kGiB)));
  EXPECT_FALSE(Meets(Worker({"cpu"}, 8 * kGiB), Of("auto", 8 * kGiB + 1)));
  EXPECT_TRUE(Meets(Worker({"cpu"}, 0), Of("auto", 800 * kGiB)));
}

TEST(NeedsTest, AWorkerMustHaveEveryLabel) {
  const Needs needs = Of("auto", 0, {{"zone", "a"}, {"disk", "nvme"}});
  EXPECT_TRUE(Meets(Worker({"cpu"}, 0, {{"zone", "a"}, {"disk", "nvme"}, {"x", "y"}}), needs));
  EXPECT_FALSE(Meets(Worker({"cpu"}, 0, {{"zone", "a"}}), needs));
  EXPECT_FALSE(Meets(Worker({"cpu"}, 0, {{"zone", "b"}, {"disk", "nvme"}}), needs));
}

TEST(NeedsTest, AnyDeviceIsAGpuWhereThereIsOne) {
  const v1::WorkerInfo cpu = Worker({"cpu"});
  const v1::WorkerInfo gpu = Worker({"cpu", "cuda:0"});
  EXPECT_EQ(GpusTaken(cpu, Of("auto", 0)), 0);
  EXPECT_EQ(GpusTaken(gpu, Of("auto", 0)), 1);
  EXPECT_EQ(GpusTaken(gpu, Of("cpu", 0)), 0);
  EXPECT_EQ(GpusTaken(gpu, Of("cuda:0", 0)), 1);
}

TEST(NeedsTest, WorkersThatMayTakeTheSameJobsOfferTheSame) {
  v1::WorkerInfo one = Worker({"cuda:0", "cpu"}, 12 * kGiB + 5, {{"a", "b"}, {"c", "d"}});
  one.set_name("one");
  const v1::WorkerInfo two = Worker({"cpu", "cuda:0"}, 12 * kGiB, {{"c", "d"}, {"a", "b"}});
  EXPECT_EQ(OfferKey(one), OfferKey(two));
  EXPECT_NE(OfferKey(two), OfferKey(Worker({"cpu", "cuda:0"}, 13 * kGiB, {{"a", "b"}})));
  EXPECT_NE(OfferKey(Worker({"cpu"})), OfferKey(Worker({"cpu", "cuda:0"})));
}

TEST(NeedsTest, LabelsArePlainWords) {
  EXPECT_EQ(LabelProblem("pool/zone-1", "A.b_c"), "");
  for (const auto& [key, value] : std::map<std::string, std::string>{{"", "v"},
                                                                     {"k", ""},
                                                                     {"a b", "v"},
                                                                     {"a=b", "v"},
                                                                     {"k", "v\n"},
                                                                     {std::string(64, 'k'), "v"}})
    EXPECT_THAT(LabelProblem(key, value), testing::HasSubstr("expected KEY=VALUE")) << key;
}

}  // namespace
}  // namespace latentforge::service

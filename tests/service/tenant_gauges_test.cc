#include "service/tenant_gauges.h"

#include "tests/service/scheduler_fixture.h"

namespace latentforge::service {
namespace {

class TenantGaugesTest : public SchedulerFixture {
 protected:
  std::map<std::string, TenantGauge> Read() {
    const auto gauges = ReadTenantGauges(*store_, *tenants_, *store_->Stats());
    EXPECT_TRUE(gauges.ok()) << gauges.status();
    std::map<std::string, TenantGauge> by_name;
    if (gauges.ok())
      for (const TenantGauge& gauge : *gauges) by_name[gauge.tenant] = gauge;
    return by_name;
  }

  void Submit(const std::string& tenant, int jobs) {
    for (int i = 0; i < jobs; ++i) ASSERT_TRUE(As(tenant).Create(CreateRequest()).ok());
  }
};

TEST_F(TenantGaugesTest, NamedTenantsAndAllOthersTogether) {
  SetTenants(R"({"a": {"max_queued_jobs": 9}, "idle": {}, "*": {"max_running_jobs": 5}})");
  Submit("a", 4);
  Submit("b", 2);
  Submit("c", 2);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(Acquire(absl::StrCat("w", i)).has_lease());
  auto gauges = Read();
  ASSERT_EQ(gauges.size(), 3u);
  EXPECT_EQ(gauges["a"].limits.max_queued_jobs, 9);
  EXPECT_EQ(gauges["a"].limits.max_running_jobs, 5);
  EXPECT_EQ(gauges["a"].use.running, 2);
  EXPECT_EQ(gauges["a"].use.queued, 2);
  EXPECT_EQ(gauges["a"].share, 0.5);
  EXPECT_EQ(gauges["other"].use.running, 2);
  EXPECT_EQ(gauges["other"].use.queued, 2);
  EXPECT_EQ(gauges["other"].limits.max_running_jobs, 0);
  EXPECT_EQ(gauges["idle"].share, 0);
}

TEST_F(TenantGaugesTest, HoweverManyTenantsTheFileNamesAHundredAreTold) {
  std::string json = "{";
  for (int i = 0; i < 300; ++i) absl::StrAppend(&json, i > 0 ? "," : "", "\"t", i, "\": {}");
  SetTenants(json + "}");
  EXPECT_EQ(Read().size(), 101u);
  EXPECT_EQ(Read()["other"].share, 0);
}

}  // namespace
}  // namespace latentforge::service

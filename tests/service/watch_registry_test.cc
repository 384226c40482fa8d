#include "service/watch_registry.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

class IdleWatcher final : public WatchRegistry::Watcher {
 public:
  void OnTick() override {}
  void OnDrain() override { drained = true; }
  bool drained = false;
};

std::string LimitIn(const absl::Status& status) {
  const google::rpc::Status rpc = ToRpcStatus(status);
  return rpc.details().empty() ? "" : rpc.DebugString();
}

TEST(WatchRegistryTest, TheLimitThatIsReachedIsNamed) {
  IdleWatcher a, b, c, d;
  WatchRegistry registry({.watches = 3, .watches_per_tenant = 2}, absl::Hours(1));
  ASSERT_TRUE(registry.Add(&a, "search").ok());
  ASSERT_TRUE(registry.Add(&b, "search").ok());
  const absl::Status of_tenant = registry.Add(&c, "search");
  EXPECT_EQ(of_tenant.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(of_tenant), "TOO_MANY_WATCHES");
  EXPECT_THAT(LimitIn(of_tenant), testing::HasSubstr("--max-watches-per-tenant"));
  ASSERT_TRUE(registry.Add(&c, "speech").ok()) << "another tenant has its own";
  const absl::Status of_server = registry.Add(&d, "vision");
  EXPECT_EQ(ReasonOf(of_server), "TOO_MANY_WATCHES");
  EXPECT_THAT(LimitIn(of_server), testing::Not(testing::HasSubstr("per-tenant")));
  registry.Remove(&a);
  EXPECT_EQ(registry.size(), 2);
  EXPECT_TRUE(registry.Add(&d, "search").ok()) << "a place is free again";
  registry.Drain();
  EXPECT_TRUE(b.drained && c.drained && d.drained);
  for (IdleWatcher* watcher : {&b, &c, &d}) registry.Remove(watcher);
  EXPECT_EQ(registry.size(), 0);
}

TEST(WatchRegistryTest, ATenantHasNoLimitOfItsOwnUnlessItIsSet) {
  IdleWatcher watchers[3];
  WatchRegistry registry({.watches = 3}, absl::Hours(1));
  for (IdleWatcher& watcher : watchers) EXPECT_TRUE(registry.Add(&watcher, "search").ok());
  for (IdleWatcher& watcher : watchers) registry.Remove(&watcher);
}

}  // namespace
}  // namespace latentforge::service

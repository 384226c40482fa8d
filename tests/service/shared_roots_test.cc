#include "service/shared_roots.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// "/root: tenant tenant" of each.
std::vector<std::string> Found(const std::string& json, const std::set<std::string>& tenants,
                               bool any_tenant = false, const PathRoots& server = {"/models"}) {
  const auto table = TenantTable::Parse(json, server);
  EXPECT_TRUE(table.ok()) << table.status();
  std::vector<std::string> found;
  for (const SharedRoot& shared : SharedRoots(*table, tenants, any_tenant)) {
    found.push_back(shared.root.string() + ":");
    for (const std::string& tenant : shared.tenants) found.back() += " " + tenant;
  }
  return found;
}

TEST(SharedRootsTest, TenantsWithoutRootsOfTheirOwnShareTheServers) {
  EXPECT_THAT(Found("{}", {}), IsEmpty());
  EXPECT_THAT(Found("{}", {"search"}), IsEmpty());
  EXPECT_THAT(Found("{}", {"search", "speech"}), ElementsAre("/models: search speech"));
  EXPECT_THAT(Found(R"({"speech": {"weight": 2}})", {"search"}),
              ElementsAre("/models: search speech"));
  EXPECT_THAT(Found("{}", {"search", "speech"}, false, {}), ElementsAre("/: search speech"));
}

TEST(SharedRootsTest, OnlyWhatOverlapsCounts) {
  EXPECT_THAT(Found(R"({"a": {"allowed_roots": ["/models/a"]},
                        "b": {"allowed_roots": ["/models/b"]},
                        "ab": {"allowed_roots": ["/models/ab"]}})",
                    {"a", "b"}),
              IsEmpty());
  EXPECT_THAT(Found(R"({"a": {"allowed_roots": ["/models/a", "/models/public"]},
                        "b": {"allowed_roots": ["/models/b", "/models/public"]}})",
                    {}),
              ElementsAre("/models/public: a b"));
  // A folder within another tenant's.
  EXPECT_THAT(Found(R"({"a": {"allowed_roots": ["/models/a"]},
                        "b": {"allowed_roots": ["/models/a/x/y", "/models/b"]}})",
                    {}),
              ElementsAre("/models/a/x/y: a b"));
  // One that adds nobody to those of the folder above is not told again.
  EXPECT_THAT(Found(R"({"a": {"allowed_roots": ["/models/x"]}})", {"b", "c"}),
              ElementsAre("/models: b c", "/models/x: a b c"));
  EXPECT_THAT(Found(R"({"a": {"allowed_roots": ["/models", "/models/x"]}})", {"b"}),
              ElementsAre("/models: a b"));
}

TEST(SharedRootsTest, AnIssuersTenantsAreAnyNumber) {
  EXPECT_THAT(Found("{}", {}, true), ElementsAre("/models: *"));
  EXPECT_THAT(Found(R"({"*": {"allowed_roots": ["/models/public"]},
                        "a": {"allowed_roots": ["/models/a"]}})",
                    {}, true),
              ElementsAre("/models/public: *"));
}

TEST(SharedRootsTest, SaysWhoWhereAndWhatToWrite) {
  EXPECT_EQ(Describe({"/models", {"search", "speech"}}),
            "tenants (search, speech) may read each other's files beneath /models: unless that is "
            "meant, give each roots of its own in --tenants, as in {\"speech\": "
            "{\"allowed_roots\": [\"/models/speech\"]}}");
  EXPECT_THAT(Describe({"/", {"*"}}),
              testing::AllOf(testing::HasSubstr("(without an entry in the tenants file)"),
                             testing::HasSubstr("{\"NAME\": {\"allowed_roots\": [\"/NAME\"]}}")));
  SharedRoot many{.root = "/m"};
  for (char name = 'a'; name <= 'k'; ++name) many.tenants.insert(std::string(1, name));
  EXPECT_THAT(Describe(many), testing::HasSubstr("(a, b, c, d, e, f, g, h, 3 more)"));
}

}  // namespace
}  // namespace latentforge::service

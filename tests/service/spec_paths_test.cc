#include "service/spec_paths.h"

#include <set>

#include "gmock/gmock.h"
#include "google/protobuf/message.h"
#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

using testing::HasSubstr;

// Gives every field `uri` in the message a path of its own; lists get two elements.
void FillUris(google::protobuf::Message& message, int& count) {
  const auto* type = message.GetDescriptor();
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto* field = type->field(i);
    if (field->name() == "uri") {
      reflection->SetString(&message, field, "/a/" + std::to_string(++count));
    } else if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
      continue;
    } else if (field->is_repeated()) {
      for (int n = 0; n < 2; ++n) FillUris(*reflection->AddMessage(&message, field), count);
    } else {
      FillUris(*reflection->MutableMessage(&message, field), count);
    }
  }
}

class SpecPathsTest : public testing::Test {
 protected:
  SpecPathsTest() { FillUris(spec_, count_); }

  v1::JobSpec spec_;
  int count_ = 0;
};

TEST_F(SpecPathsTest, EveryUriOfASpecificationIsOne) {
  std::set<std::string> uris;
  for (const SpecPath& path : PathsOf(spec_)) uris.insert(path.uri);
  EXPECT_EQ(count_, 7);
  EXPECT_EQ(static_cast<int>(uris.size()), count_);
  EXPECT_TRUE(PathsOf({}).empty());
}

TEST_F(SpecPathsTest, EachMustLieBeneathTheRoots) {
  EXPECT_TRUE(CheckBeneath(spec_, {}).ok());
  EXPECT_TRUE(CheckBeneath(spec_, {"/b", "/a"}).ok());
  for (int outside = 1; outside <= count_; ++outside) {
    const std::string uri = "/a/" + std::to_string(outside);
    PathRoots roots;
    for (int i = 1; i <= count_; ++i)
      if (i != outside) roots.push_back("/a/" + std::to_string(i));
    v1::JobSpec spec = spec_;
    if (uri != spec.output().uri()) spec.mutable_output()->set_uri(roots[0].string() + "/out");
    const absl::Status status = CheckBeneath(spec, roots);
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << uri;
    EXPECT_THAT(std::string(status.message()), HasSubstr("uri: path " + uri + " is outside"));
  }
}

TEST_F(SpecPathsTest, ARootItselfHoldsNoOutput) {
  EXPECT_FALSE(MayHoldOutput({"/a"}, "/a"));
  EXPECT_FALSE(MayHoldOutput({"/"}, "/"));
  EXPECT_TRUE(MayHoldOutput({"/a"}, "/a/out"));
  EXPECT_TRUE(MayHoldOutput({"/a/out", "/a"}, "/a/out"));
  EXPECT_TRUE(MayHoldOutput({"/"}, "/out"));
  EXPECT_TRUE(MayHoldOutput({}, "/a"));
}

}  // namespace
}  // namespace latentforge::service

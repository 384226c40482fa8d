#include "service/grpc_status.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "service/store/store.h"

namespace latentforge::service {
namespace {

// As a client finds it.
google::rpc::ErrorInfo InfoOf(const grpc::Status& status) {
  google::rpc::Status rpc;
  EXPECT_TRUE(rpc.ParseFromString(status.error_details()));
  EXPECT_EQ(rpc.message(), status.error_message());
  google::rpc::ErrorInfo info;
  for (const auto& detail : rpc.details())
    if (detail.Is<google::rpc::ErrorInfo>()) detail.UnpackTo(&info);
  return info;
}

// Of the trailing metadata: base64, and %XX for each byte that is not ASCII.
size_t SentAtMost(const grpc::Status& status) {
  size_t bytes = status.error_details().size() * 4 / 3;
  for (const char c : status.error_message()) bytes += static_cast<unsigned char>(c) < 0x80 ? 1 : 3;
  return bytes;
}

TEST(GrpcStatusTest, AnErrorKeepsItsReasonHoweverLongAndStrangeAPathIs) {
  for (const char* name : {"a", "\xC3\xA9", "\xFF", "\xE2\x82"}) {
    std::string path;
    for (int i = 0; i < 4000; ++i) absl::StrAppend(&path, i % 100 == 0 ? "/" : name);
    for (const std::string& id : {std::string(), std::string("j1")}) {
      const grpc::Status status = ToGrpcStatus(OutputInUseError(path, id, v1::JOB_STATE_QUEUED));
      EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
      const google::rpc::ErrorInfo info = InfoOf(status);
      EXPECT_EQ(info.reason(), "OUTPUT_IN_USE");
      EXPECT_EQ(info.metadata().at("output").substr(0, 1), "/");
      EXPECT_EQ(info.metadata().count("job"), id.size() / 2);
      EXPECT_LT(SentAtMost(status), 8000u);
    }
  }
}

TEST(GrpcStatusTest, ShortErrorsAreWhole) {
  const grpc::Status status = ToGrpcStatus(OutputInUseError("/out", "j1", v1::JOB_STATE_QUEUED));
  google::rpc::Status rpc;
  ASSERT_TRUE(rpc.ParseFromString(status.error_details()));
  EXPECT_EQ(rpc.details_size(), 2);
  EXPECT_EQ(InfoOf(status).metadata().at("output"), "/out");
}

}  // namespace
}  // namespace latentforge::service

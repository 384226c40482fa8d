// The JSON forms that cross the pipe and the command line, and the conventions
// that clients rely on.
#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/util/json_util.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "latentforge/v1/job_service.pb.h"
#include "latentforge/v1/worker_service.pb.h"

namespace latentforge {
namespace {

using google::protobuf::util::JsonStringToMessage;
using google::protobuf::util::MessageToJsonString;

TEST(ProtoJsonTest, EventLineHasTheDocumentedForm) {
  v1::AttemptEvent event;
  event.set_sequence(3);
  event.mutable_phase_finished()->set_phase(v1::PHASE_CALIBRATING);
  event.mutable_phase_finished()->set_tokens_per_second(12.5);
  std::string json;
  ASSERT_TRUE(MessageToJsonString(event, &json).ok());
  EXPECT_EQ(
      json,
      R"({"sequence":"3","phaseFinished":{"phase":"PHASE_CALIBRATING","tokensPerSecond":12.5}})");
}

TEST(ProtoJsonTest, SpecReadsNumbersAndStringsAlikeAndRefusesUnknownKeys) {
  v1::JobSpec spec;
  const std::string text =
      R"({"source":{"uri":"/m"},"calibration":{"seed":"7","sequences":4},"budget":{"kvBudget":0.5}})";
  ASSERT_TRUE(JsonStringToMessage(text, &spec).ok());
  EXPECT_EQ(spec.calibration().seed(), 7u);
  EXPECT_EQ(spec.budget().kv_budget(), 0.5);
  EXPECT_FALSE(JsonStringToMessage(R"({"sauce":{"uri":"/m"}})", &spec).ok());
}

TEST(ProtoJsonTest, EveryEnumStartsUnspecified) {
  for (const auto* file :
       {v1::JobSpec::descriptor()->file(), v1::Job::descriptor()->file(),
        v1::AttemptEvent::descriptor()->file(), v1::Lease::descriptor()->file()}) {
    for (int i = 0; i < file->enum_type_count(); ++i) {
      const auto* zero = file->enum_type(i)->FindValueByNumber(0);
      ASSERT_NE(zero, nullptr) << file->enum_type(i)->full_name();
      EXPECT_THAT(zero->name(), testing::EndsWith("_UNSPECIFIED"));
    }
  }
}

TEST(ProtoJsonTest, EveryMethodHasItsOwnRequestAndResponse) {
  for (const auto* file :
       {v1::CreateJobRequest::descriptor()->file(), v1::Lease::descriptor()->file()}) {
    ASSERT_EQ(file->service_count(), 1);
    const auto* service = file->service(0);
    for (int i = 0; i < service->method_count(); ++i) {
      const auto* method = service->method(i);
      EXPECT_EQ(method->input_type()->name(), method->name() + "Request");
      EXPECT_EQ(method->output_type()->name(), method->name() + "Response");
    }
  }
}

TEST(ProtoJsonTest, ErrorDetailsAreLinked) {
  google::rpc::ErrorInfo info;
  info.set_reason("LEASE_LOST");
  EXPECT_EQ(info.descriptor()->full_name(), "google.rpc.ErrorInfo");
}

}  // namespace
}  // namespace latentforge

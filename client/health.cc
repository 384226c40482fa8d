#include "client/health.h"

#include <chrono>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/error.h"
#include "client/rpc_status.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/wire_format_lite.h"
#include "grpcpp/impl/codegen/client_unary_call.h"
#include "grpcpp/support/byte_buffer.h"

namespace latentforge::client {
namespace {

using google::protobuf::internal::WireFormatLite;

constexpr char kMethod[] = "/grpc.health.v1.Health/Check";

std::string Bytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

absl::Status Explain(const absl::Status& status, const std::string& address,
                     const std::string& service) {
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) {
    return Unreachable(status, address);
  }
  if (absl::IsNotFound(status) && !service.empty()) {
    return WithNextStep(
        absl::NotFoundError(absl::StrCat("--service is \"", service, "\", which server ", address,
                                         " does not have")),
        "leave --service out, or name latentforge.v1.JobService or latentforge.v1.WorkerService");
  }
  return Annotate(status, absl::StrCat("server ", address));
}

}  // namespace

std::string EncodeHealthRequest(const std::string& service) {
  std::string bytes;
  if (service.empty()) return bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  WireFormatLite::WriteString(1, service, &coded);
  coded.Trim();
  return bytes;
}

absl::StatusOr<int> DecodeHealthResponse(const std::string& bytes) {
  google::protobuf::io::CodedInputStream coded(reinterpret_cast<const uint8_t*>(bytes.data()),
                                               static_cast<int>(bytes.size()));
  int status = 0;
  while (const uint32_t tag = coded.ReadTag()) {
    if (tag == WireFormatLite::MakeTag(1, WireFormatLite::WIRETYPE_VARINT)) {
      uint64_t value = 0;
      if (!coded.ReadVarint64(&value)) return absl::DataLossError("health reply: broken number");
      status = static_cast<int>(value);
    } else if (!WireFormatLite::SkipField(&coded, tag)) {
      return absl::DataLossError("health reply: broken field");
    }
  }
  if (!coded.ConsumedEntireMessage()) return absl::DataLossError("health reply: broken tag");
  return status;
}

absl::StatusOr<std::string> CheckHealth(grpc::Channel& channel, const std::string& address,
                                        const std::string& service, absl::Duration timeout) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
  const grpc::Slice slice(EncodeHealthRequest(service));
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  const grpc::internal::RpcMethod method(kMethod, grpc::internal::RpcMethod::NORMAL_RPC);
  const grpc::Status status =
      grpc::internal::BlockingUnaryCall(&channel, method, &context, request, &response);
  if (!status.ok()) {
    return Explain(FromRpcStatus(status), address, service);
  }
  LF_ASSIGN_OR_RETURN(const int value, DecodeHealthResponse(Bytes(response)));
  const char* const names[] = {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};
  return value >= 0 && value < 4 ? std::string(names[value]) : absl::StrCat("status ", value);
}

}  // namespace latentforge::client

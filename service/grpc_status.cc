#include "service/grpc_status.h"

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "service/attempt_events.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

constexpr size_t kMaxMessageBytes = 1000;
constexpr size_t kMaxDetailsBytes = 4000;  // base64 makes a third more of it

// Without the details that may be long: what is left has one ErrorInfo.
void KeepOnlyErrorInfo(google::rpc::Status& rpc) {
  auto* details = rpc.mutable_details();
  for (int i = details->size() - 1; i >= 0; --i)
    if (!details->Get(i).Is<google::rpc::ErrorInfo>()) details->DeleteSubrange(i, 1);
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status rpc = ToRpcStatus(status);
  rpc.set_message(Truncated(rpc.message(), kMaxMessageBytes));
  if (rpc.ByteSizeLong() > kMaxDetailsBytes) KeepOnlyErrorInfo(rpc);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), rpc.message(),
                      rpc.SerializeAsString());
}

}  // namespace latentforge::service

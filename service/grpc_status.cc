#include "service/grpc_status.h"

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "service/attempt_events.h"
#include "service/errors.h"

namespace latentforge::service {
namespace {

// Together, as they are sent, with what else is in the trailing metadata: less than 8 KiB.
constexpr size_t kMaxMessageBytes = 1000;
constexpr size_t kMaxSentMessageBytes = 2000;
constexpr size_t kMaxDetailsBytes = 4000;  // base64 makes a third more of it
constexpr size_t kMaxValueBytes = 400;     // of an ErrorInfo that is too long

// Without the details that may be long: what is left has one ErrorInfo.
void KeepOnlyErrorInfo(google::rpc::Status& rpc) {
  auto* details = rpc.mutable_details();
  for (int i = details->size() - 1; i >= 0; --i)
    if (!details->Get(i).Is<google::rpc::ErrorInfo>()) details->DeleteSubrange(i, 1);
}

// Of a path that is not UTF-8 each byte may have become three.
void ShortenErrorInfo(google::rpc::Status& rpc) {
  google::rpc::ErrorInfo info;
  if (rpc.details().empty() || !rpc.details(0).UnpackTo(&info)) return;
  for (auto& [key, value] : *info.mutable_metadata()) value = Truncated(value, kMaxValueBytes);
  rpc.mutable_details(0)->PackFrom(info);
}

// gRPC sends %XX for what is not printable ASCII.
size_t SentBytes(absl::string_view text) {
  size_t bytes = 0;
  for (const char c : text) bytes += c < ' ' || c > '~' || c == '%' ? 3 : 1;
  return bytes;
}

std::string ShortMessage(const std::string& message) {
  std::string text = Truncated(message, kMaxMessageBytes);
  while (SentBytes(text) > kMaxSentMessageBytes) text = Truncated(text, text.size() - 1);
  return text;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status rpc = ToRpcStatus(status);
  rpc.set_message(ShortMessage(rpc.message()));
  if (rpc.ByteSizeLong() > kMaxDetailsBytes) KeepOnlyErrorInfo(rpc);
  if (rpc.ByteSizeLong() > kMaxDetailsBytes) ShortenErrorInfo(rpc);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), rpc.message(),
                      rpc.SerializeAsString());
}

}  // namespace latentforge::service

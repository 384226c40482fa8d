#include "checkpoint/open_error.h"

#include "absl/strings/cord.h"

namespace latentforge::checkpoint {
namespace {

constexpr char kPartUrl[] = "latentforge.checkpoint/part";
constexpr char kConfig[] = "config";
constexpr char kWeights[] = "weights";

}  // namespace

absl::Status InPart(Part part, absl::Status status) {
  if (!status.ok())
    status.SetPayload(kPartUrl, absl::Cord(part == Part::kConfig ? kConfig : kWeights));
  return status;
}

const char* ReasonOfOpenError(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnimplemented:
      return "UNSUPPORTED_ARCHITECTURE";
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
      return "SOURCE_NOT_READABLE";
    case absl::StatusCode::kDataLoss:
      return "SOURCE_CORRUPT";
    default:
      break;
  }
  const absl::optional<absl::Cord> part = status.GetPayload(kPartUrl);
  if (!part.has_value()) return "MALFORMED_CHECKPOINT";
  return *part == kConfig ? "MALFORMED_CONFIG" : "MALFORMED_SAFETENSORS";
}

}  // namespace latentforge::checkpoint

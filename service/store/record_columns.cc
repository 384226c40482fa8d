#include "service/store/record_columns.h"

#include <algorithm>

#include "service/errors.h"

namespace latentforge::service {

int CountColumns(absl::string_view columns) {
  return static_cast<int>(std::count(columns.begin(), columns.end(), ',')) + 1;
}

std::string FixedPart(const v1::Job& job) {
  v1::Job fixed = job;
  fixed.clear_status();
  fixed.clear_update_time();
  fixed.clear_end_time();
  fixed.clear_last_sequence();
  fixed.clear_etag();
  fixed.clear_queue_deadline_time();
  fixed.clear_expire_time();
  fixed.clear_tenant();
  return fixed.SerializeAsString();
}

std::string PhasesToBytes(const AttemptRecord& attempt) {
  v1::Attempt message;
  message.mutable_phases()->Assign(attempt.phases.begin(), attempt.phases.end());
  return message.SerializeAsString();
}

bool ParsePhases(const std::string& bytes, AttemptRecord& attempt) {
  v1::Attempt message;
  if (!message.ParseFromString(bytes)) return false;
  attempt.phases.assign(message.phases().begin(), message.phases().end());
  return true;
}

absl::Status CorruptJobError(absl::string_view id) {
  return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                   absl::StrCat("job ", id, " is corrupt in the database"));
}

absl::Status CorruptAttemptError(int32_t number) {
  return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                   absl::StrCat("attempt ", number, " is corrupt in the database"));
}

}  // namespace latentforge::service

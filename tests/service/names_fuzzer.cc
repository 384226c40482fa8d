// Feeds arbitrary text to the parsers of what clients name: jobs, attempts and file URIs. What
// passes has one form, and stays what it is when it is written again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/file.h"
#include "service/errors.h"
#include "service/job_name.h"

namespace {

using namespace latentforge::service;  // NOLINT: nothing else is declared here

void CheckJob(absl::string_view text) {
  const auto id = ParseJobName(text);
  if (id.ok() ? JobName(*id) != text : ReasonOf(id.status()) != "BAD_NAME") abort();
}

void CheckAttempt(absl::string_view text) {
  const auto id = ParseAttemptName(text);
  if (!id.ok()) {
    if (ReasonOf(id.status()) != "BAD_NAME") abort();
    return;
  }
  if (AttemptName(id->job, id->number) != text || id->number < 1) abort();
  if (!ParseJobName(JobName(id->job)).ok()) abort();
}

void CheckUri(absl::string_view text) {
  const auto path = latentforge::PathFromUri(text);
  if (!path.ok()) {
    if (!absl::IsInvalidArgument(path.status())) abort();
    return;
  }
  if (!path->is_absolute() || path->string().find('\0') != std::string::npos) abort();
  // A path is its own URI.
  const auto again = latentforge::PathFromUri(path->string());
  if (!again.ok() || *again != *path) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  CheckJob(text);
  CheckAttempt(text);
  CheckUri(text);
  return 0;
}

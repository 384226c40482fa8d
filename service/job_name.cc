#include "service/job_name.h"

#include <algorithm>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "service/errors.h"

namespace latentforge::service {

absl::StatusOr<std::string> ParseJobName(absl::string_view name, absl::string_view field) {
  absl::string_view id = name;
  const bool fine = absl::ConsumePrefix(&id, "jobs/") && !id.empty() && id.size() <= 63 &&
                    std::all_of(id.begin(), id.end(), [](unsigned char c) {
                      return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
                    });
  if (fine) return std::string(id);
  return MakeFieldError(
      "BAD_NAME",
      {{std::string(field), absl::StrCat("is \"", name.substr(0, 80),
                                         "\", expected jobs/ID of a to z, 0 to 9 and \"-\"")}});
}

std::string JobName(absl::string_view id) { return absl::StrCat("jobs/", id); }

absl::StatusOr<AttemptId> ParseAttemptName(absl::string_view name) {
  constexpr absl::string_view kCollection = "/attempts/";
  const size_t middle = name.rfind(kCollection);
  if (middle != absl::string_view::npos) {
    absl::StatusOr<std::string> job = ParseJobName(name.substr(0, middle));
    AttemptId id;
    const absl::string_view number = name.substr(middle + kCollection.size());
    // One name for each attempt: not "01", and not "+1".
    if (job.ok() && absl::SimpleAtoi(number, &id.number) && id.number > 0 &&
        number == absl::StrCat(id.number)) {
      id.job = *std::move(job);
      return id;
    }
  }
  return MakeFieldError("BAD_NAME",
                        {{"name", absl::StrCat("is \"", name.substr(0, 80),
                                               "\", expected jobs/ID/attempts/NUMBER")}});
}

std::string AttemptName(absl::string_view job_id, int32_t number) {
  return absl::StrCat(JobName(job_id), "/attempts/", number);
}

std::string RandomJobId() {
  constexpr char kAlphabet[] = "0123456789abcdefghijklmnopqrstuv";
  thread_local absl::BitGen random;
  std::string id = "j";
  for (int i = 0; i < 15; ++i) id += kAlphabet[absl::Uniform(random, 0, 32)];
  return id;
}

}  // namespace latentforge::service

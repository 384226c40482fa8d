// Jobs of one command on this machine: a private service, and a job from its submit to its end.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "client/conversion_client.h"
#include "client/job_file.h"
#include "client/private_service.h"
#include "client/progress_view.h"
#include "client/state_folder.h"

namespace latentforge::client {

// The programs of a private service, looked for before any is started: an error with reason
// PROGRAM_UNUSABLE names the one that is missing.
absl::StatusOr<PrivateServiceOptions> FindServicePrograms();

// Not safe for concurrent use.
class PrivateSession {
 public:
  // In `folder`, which outlives it, as the clock does. Errors as PrivateService::Start.
  static absl::StatusOr<std::unique_ptr<PrivateSession>> Start(StateFolder& folder,
                                                               PrivateServiceOptions programs,
                                                               Clock& clock);

  // The server's refusal, where it would refuse the job.
  absl::Status Validate(const JobDraft& draft);

  // Submits the job, or goes on with what an interrupted run of the same command submitted:
  // `digest` names the specification. Shows its progress in `view`, which is finished then. After
  // the first Ctrl-C the job is cancelled. Returns the job that ended; an error where the service
  // itself failed or refused.
  absl::StatusOr<v1::Job> Run(const JobDraft& draft, const std::string& digest, ProgressView& view);

  // Every job of this service, also those of earlier runs in its folder.
  absl::StatusOr<std::vector<v1::Job>> Jobs();

  // Cancels a job that has not ended and waits for its end. Cancelled after Ctrl-C.
  absl::Status Cancel(const v1::Job& job);

  void Stop();

 private:
  PrivateSession(std::filesystem::path folder, std::unique_ptr<PrivateService> service,
                 std::unique_ptr<ConversionClient> client, Clock& clock)
      : folder_(std::move(folder)),
        service_(std::move(service)),
        client_(std::move(client)),
        clock_(clock) {}

  absl::StatusOr<v1::Job> Follow(const std::string& name, ProgressView& view);

  const std::filesystem::path folder_;
  std::unique_ptr<PrivateService> service_;
  std::unique_ptr<ConversionClient> client_;
  Clock& clock_;
};

}  // namespace latentforge::client

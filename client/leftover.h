// What a command on this machine leaves in its work folder, and what it says of that.
#pragma once

#include "absl/status/status.h"
#include "client/state_folder.h"
#include "client/terminal.h"
#include "latentforge/v1/job.pb.h"

namespace latentforge::client {

// What lies in the work folder at the end.
enum class Leftover {
  kNothing,     // of any use
  kUnfinished,  // the same command goes on with it
  kEarlier,     // an earlier run's, for when the refusal is out of the way
};

// The work folder is of use as long as a rerun could continue in it, or somebody
// has to look into the logs. Another deadline is another specification, and folder.
bool WorkIsDone(const v1::Job& job);

// After a command that ended so. `done`: where that is OK, its jobs left nothing of use.
Leftover LeftBy(const absl::Status& ended, bool done, bool existed);

// Removes the folder where nothing of use lies in it, else says what is kept. File errors.
absl::Status CloseWork(StateFolder& folder, Leftover left, bool keep, Terminal& terminal);

}  // namespace latentforge::client

// The folder in which `latentforge convert` keeps a job between start and end, so
// that the same command continues after an interruption.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "client/terminal.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge::client {

// $XDG_STATE_HOME/latentforge, else $HOME/.local/state/latentforge, else
// /tmp/latentforge-UID.
std::filesystem::path DefaultStateRoot(const GetEnvironment& environment);

// Names a specification: equal for equal specifications. 32 hexadecimal digits.
std::string SpecDigest(const v1::JobSpec& spec);

// A folder ROOT/convert-DIGEST of mode 0700 that this process holds a lock on.
// Movable; not safe for concurrent use.
class StateFolder {
 public:
  // FailedPrecondition when another process holds it or when it belongs to
  // another user.
  static absl::StatusOr<StateFolder> Open(const std::filesystem::path& root,
                                          const std::string& digest);

  const std::filesystem::path& path() const { return path_; }
  // True when an earlier run left it.
  bool existed() const { return existed_; }
  // A path for a Unix socket, short enough for the kernel (107 bytes): in the
  // folder, or in a new private folder beneath /tmp.
  absl::StatusOr<std::filesystem::path> SocketPath();
  // Removes everything.
  absl::Status Remove();
  // Removes what is of no use to a later run.
  void Release();

 private:
  std::filesystem::path path_;
  std::filesystem::path socket_folder_;  // beneath /tmp, or empty
  UniqueFd lock_;
  bool existed_ = false;
};

}  // namespace latentforge::client

// What a stream of messages to one caller is fed from.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace latentforge::service {

// A cursor. Not safe for concurrent use.
template <typename Response>
class StreamSource {
 public:
  virtual ~StreamSource() = default;

  // The next message; nullopt when there is none at present. An error ends the stream.
  virtual absl::StatusOr<std::optional<Response>> Next() = 0;

  // The last message was returned.
  virtual bool finished() const = 0;

  // What is said when nothing else was for a while.
  virtual Response MakeBookmark(absl::Time now) const = 0;
};

}  // namespace latentforge::service

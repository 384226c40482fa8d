// Notices that a server does not accept connections any more.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/timed_flag.h"

namespace latentforge::service {

// What a listener speaks.
enum class Wire { kPlain, kTls };

struct WatchdogOptions {
  absl::Duration interval = absl::Seconds(5);  // between two looks
  absl::Duration timeout = absl::Seconds(5);   // of a look
  int failures = 3;                            // in a row, before it is given up
  Wire wire = Wire::kPlain;
};

// Opens a connection to `address` ("host:port" or "unix:/path", of this machine), says what a
// client says first there (HTTP/2's preface, or TLS' hello), and waits for any answer; to be
// refused is one. It goes before a handshake is complete, so that the listener has nothing to
// complain of. DeadlineExceeded when no answer comes: nobody accepted it. ResourceExhausted when
// this process cannot open a socket, which says nothing about the listener.
absl::Status ProbeListener(const std::string& address, Wire wire, absl::Duration timeout);

// Looks from construction to destruction; `give_up` is called once, with the reason, after as many
// failures in a row as the options say. Its caller has no other way than to end the process.
class AcceptWatchdog {
 public:
  AcceptWatchdog(std::string address, WatchdogOptions options,
                 std::function<void(const absl::Status&)> give_up);
  ~AcceptWatchdog();

 private:
  void Run();

  const std::string address_;
  const WatchdogOptions options_;
  const std::function<void(const absl::Status&)> give_up_;
  TimedFlag stopping_;
  std::thread thread_;  // last: it uses the others
};

}  // namespace latentforge::service

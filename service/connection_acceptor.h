// Accepts the connections of a gRPC server, which itself stops listening for ever after one failed
// accept (1.51, CVE-2023-4785).
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "base/unique_fd.h"
#include "service/listen_socket.h"

namespace latentforge::service {

struct AcceptorOptions {
  // A connection whose descriptor is this or higher is closed at once: the rest are for files, the
  // database and what else the process opens.
  int descriptor_limit = 0;
  // After an accept that failed, and while there are too many connections.
  absl::Duration pause = absl::Milliseconds(50);
};

// The largest descriptor_limit that leaves room for everything else, from RLIMIT_NOFILE.
int SuitableDescriptorLimit();

// Accepts on a thread, from construction to destruction, whatever errors there are: connections
// that cannot be accepted wait in the kernel's queue.
class ConnectionAcceptor {
 public:
  // `serve` is called on that thread with each connection, which is not blocking.
  ConnectionAcceptor(ListenSocket socket, AcceptorOptions options,
                     std::function<void(UniqueFd)> serve);
  ~ConnectionAcceptor();

  const std::string& text() const { return socket_.text(); }
  // Connections that were closed because there were too many.
  int64_t refused() const { return refused_; }

 private:
  void Run();
  bool Accept(int listener);

  const ListenSocket socket_;
  const AcceptorOptions options_;
  const std::function<void(UniqueFd)> serve_;
  std::atomic<int64_t> refused_ = 0;
  absl::Time last_warning_ = absl::InfinitePast();  // of the thread
  UniqueFd stop_;                                   // an eventfd
  std::thread thread_;                              // last: it uses the others
};

}  // namespace latentforge::service

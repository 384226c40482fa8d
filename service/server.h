// The whole server: store, scheduler, gRPC, metrics, and an orderly end.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "service/options.h"

namespace latentforge::service {

// Serves from Start to Stop. Start and Stop are for one thread.
class Server {
 public:
  // Opens the database, listens and serves. Errors name the address or database:
  // AlreadyExists or Unavailable when an address is taken, FailedPrecondition when
  // another server has the SQLite file, Unavailable when PostgreSQL does not answer.
  // Borrows the clock.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options, Clock& clock);
  ~Server();

  // While a shared database does not answer, health reports NOT_SERVING for the services
  // by name, and SERVING for the process: it need not be restarted.

  // Where clients can connect, with the ports that the kernel chose.
  const std::vector<std::string>& addresses() const;
  const std::string& metrics_address() const;  // empty: none

  // Reports NOT_SERVING, waits drain_delay, ends watches and waits for work, gives
  // other calls drain_grace, and stops. Takes at most about the sum of both.
  void Stop();

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

}  // namespace latentforge::service

// A cluster with a proxy on each of its connections.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/faults/fault_proxy.h"
#include "tests/service/store/postgres_server.h"
#include "tests/service/temp_dir.h"
#include "tests/system/cluster.h"

namespace latentforge::faults {

// Servers of one database, and three proxies for each: what its clients, its workers and it
// itself dial. Not safe for concurrent use.
class ProxiedCluster {
 public:
  // On SQLite, which has one server and nothing between it and its file.
  explicit ProxiedCluster(ClusterOptions options = {});
  // On a new database of the PostgreSQL that tests of one program share.
  static ProxiedCluster OnPostgres(size_t servers, ClusterOptions options = {});

  Cluster& cluster() { return *cluster_; }
  // Empty on SQLite.
  const std::string& database() const { return database_; }

  FaultProxy& at_clients(size_t server = 0) { return *client_proxies_[server]; }
  FaultProxy& at_workers(size_t server = 0) { return *worker_proxies_[server]; }
  FaultProxy& at_database(size_t server = 0) { return *database_proxies_[server]; }

  // What to dial instead of a server's own address.
  std::string client_address(size_t server = 0) const { return Address("clients", server); }
  std::string worker_address(size_t server = 0) const { return Address("workers", server); }

 private:
  ProxiedCluster(size_t servers, std::string database, ClusterOptions options);
  std::string Address(const std::string& side, size_t server) const;

  const std::unique_ptr<TempDir> folder_;
  const std::string database_;
  std::vector<std::unique_ptr<FaultProxy>> database_proxies_;
  std::unique_ptr<Cluster> cluster_;
  std::vector<std::unique_ptr<FaultProxy>> client_proxies_;
  std::vector<std::unique_ptr<FaultProxy>> worker_proxies_;
};

}  // namespace latentforge::faults

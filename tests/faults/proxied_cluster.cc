#include "tests/faults/proxied_cluster.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace latentforge::faults {
namespace {

// As libpq looks for it in the folder that "host" names.
constexpr char kSocket[] = ".s.PGSQL.5432";

}  // namespace

ProxiedCluster::ProxiedCluster(ClusterOptions options)
    : ProxiedCluster(1, "", std::move(options)) {}

ProxiedCluster ProxiedCluster::OnPostgres(size_t servers, ClusterOptions options) {
  return {servers, service::PostgresServer::Shared().NewDatabase(), std::move(options)};
}

ProxiedCluster::ProxiedCluster(size_t servers, std::string database, ClusterOptions options)
    : folder_(std::make_unique<TempDir>()), database_(std::move(database)) {
  options.databases.assign(servers, "");
  for (size_t server = 0; server < servers && !database_.empty(); ++server) {
    const std::vector<std::string> parts = absl::StrSplit(database_, "host=");
    const std::filesystem::path folder = folder_->path() / absl::StrCat("database", server);
    std::filesystem::create_directory(folder);
    database_proxies_.push_back(
        std::make_unique<FaultProxy>(absl::StrCat("unix:", (folder / kSocket).string()),
                                     absl::StrCat("unix:", parts[1], "/", kSocket)));
    options.databases[server] = absl::StrCat(parts[0], "host=", folder.string());
  }
  cluster_ = std::make_unique<Cluster>(std::move(options));
  for (size_t server = 0; server < servers; ++server) {
    const std::string target = cluster_->address(server);
    client_proxies_.push_back(std::make_unique<FaultProxy>(client_address(server), target));
    worker_proxies_.push_back(std::make_unique<FaultProxy>(worker_address(server), target));
  }
}

std::string ProxiedCluster::Address(const std::string& side, size_t server) const {
  return absl::StrCat("unix:", (folder_->path() / absl::StrCat(side, server)).string());
}

}  // namespace latentforge::faults

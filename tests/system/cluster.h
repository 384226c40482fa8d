// Real server and worker processes for system tests, with a scripted compute process.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/child_process.h"
#include "latentforge/v1/job_service.grpc.pb.h"
#include "latentforge/v1/worker_service.grpc.pb.h"

namespace latentforge {

// Polls until `done`; false after 60 s.
bool Await(const std::function<bool()>& done);

// The lines of a file; none when it is absent.
std::vector<std::string> Lines(const std::filesystem::path& path);

// True while the process runs; a zombie does not.
bool IsRunning(pid_t pid);

// A program of the build, killed at the latest with the object.
class Daemon {
 public:
  // `launcher` is a program with arguments that becomes this one, such as "faketime -f +10m".
  Daemon(const std::string& name, const std::vector<std::string>& arguments,
         const std::vector<std::string>& launcher = {});
  ~Daemon();

  void Signal(int signal) const;
  pid_t pid() const { return process_->pid(); }
  // True once it has ended, or when it could not be started.
  bool ended() const { return process_ == nullptr || !IsRunning(pid()); }
  // Blocks until it has ended.
  ExitStatus Wait();
  // What it wrote; after Wait.
  const std::string& log() const { return output_.err; }

 private:
  std::unique_ptr<ChildProcess> process_;
  ChildOutput output_;
  std::thread reader_;
};

struct ClusterOptions {
  // One server for each: its --database, where "" is a SQLite file of the cluster's own.
  std::vector<std::string> databases = {""};
  std::vector<std::string> server_flags;
  std::vector<std::string> server_launcher;
  std::string lease = "2s";
};

struct WorkerOptions {
  std::string server;             // its address; empty: that of the first server
  std::filesystem::path scratch;  // empty: a folder of the cluster's
  std::vector<std::string> flags;
  std::vector<std::string> launcher;     // as Daemon's
  std::string convert = "fake_convert";  // a program of the build
};

// A folder with a tiny checkpoint, a database, and the processes around them. The
// servers lease for two seconds and repeat failed attempts at once.
class Cluster {
 public:
  explicit Cluster(ClusterOptions options = {});
  ~Cluster();

  void StartServer(size_t server = 0);
  void KillServer(size_t server = 0);
  void SignalServer(int signal, size_t server = 0) { servers_[server]->Signal(signal); }
  // Blocks until it has ended.
  void AwaitServer(size_t server = 0) { servers_[server]->Wait(); }
  Daemon& server(size_t server = 0) { return *servers_[server]; }
  size_t servers() const { return servers_.size(); }
  // Of servers that start from now on.
  void set_lease(const std::string& lease) { options_.lease = lease; }
  // Whom the calls below go to; the first one until then.
  void Ask(size_t server);

  Daemon& StartWorker(const std::string& name, const WorkerOptions& options = {});
  Daemon& worker(const std::string& name) { return *workers_.at(name); }

  // Creates a job whose process runs `attempts`: for each attempt a list of steps of
  // fake_convert, comma separated. "@" in them is the cluster's folder. Returns its
  // name; empty, with a test failure, when the server refuses it.
  std::string Submit(const std::vector<std::string>& attempts);
  v1::Job Get(const std::string& job);
  // Every job, or those that have not ended.
  std::vector<v1::Job> List(bool active);
  void Cancel(const std::string& job);
  void Pause(const std::string& job);
  void Resume(const std::string& job);
  void Retry(const std::string& job);
  // The process of the latest attempt, once `count` of them have noted themselves in "@/pids".
  pid_t AwaitProcess(size_t count);
  // Lets processes go on that wait for "@/go".
  void Go();
  // Waits until the job is in this state.
  void AwaitState(const std::string& job, v1::JobState state);
  // Waits until the job has ended.
  v1::Job AwaitEnd(const std::string& job);
  std::vector<v1::JobEvent> History(const std::string& job);
  std::vector<v1::Worker> Workers();
  // Sends one call of the worker API with a lease; returns its status.
  grpc::Status Beat(const v1::Lease& lease, const std::string& worker);

  // For calls that the above do not make.
  v1::JobService::Stub& jobs() { return *jobs_; }
  v1::WorkerService::Stub& leases() { return *leases_; }

  std::string address(size_t server = 0) const;
  std::filesystem::path Path(const std::string& name) const { return folder_ / name; }
  std::filesystem::path Scratch(const std::string& worker, const std::string& job) const;

 private:
  // Waits until the daemon has written its ready file. When it ends instead, the test fails at
  // once, with its log.
  static void AwaitReady(Daemon& daemon, const std::filesystem::path& ready);

  ClusterOptions options_;
  const std::filesystem::path folder_;
  std::vector<std::unique_ptr<Daemon>> servers_;
  std::map<std::string, std::unique_ptr<Daemon>> workers_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::WorkerService::Stub> leases_;
  size_t asked_ = 0;
  int submitted_ = 0;
};

}  // namespace latentforge

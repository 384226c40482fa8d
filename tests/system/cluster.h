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
  Daemon(const std::string& name, const std::vector<std::string>& arguments);
  ~Daemon();

  void Signal(int signal) const;
  // Blocks until it has ended.
  ExitStatus Wait();
  // What it wrote; after Wait.
  const std::string& log() const { return output_.err; }

 private:
  std::unique_ptr<ChildProcess> process_;
  ChildOutput output_;
  std::thread reader_;
};

// A folder with a tiny checkpoint, a database, and the processes around them. The
// server leases for two seconds and repeats failed attempts at once.
class Cluster {
 public:
  Cluster();
  ~Cluster();

  void StartServer(const std::string& lease = "2s");
  void KillServer();
  void SignalServer(int signal) { server_->Signal(signal); }
  // Blocks until it has ended.
  void AwaitServer() { server_->Wait(); }
  Daemon& StartWorker(const std::string& name, const std::vector<std::string>& more_flags = {});
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
  // Waits until the job is in this state.
  void AwaitState(const std::string& job, v1::JobState state);
  // Waits until the job has ended.
  v1::Job AwaitEnd(const std::string& job);
  std::vector<v1::JobEvent> History(const std::string& job);
  std::vector<v1::Worker> Workers();
  // Sends one call of the worker API with a lease; returns its status.
  grpc::Status Beat(const v1::Lease& lease, const std::string& worker);

  const std::string& address() const { return address_; }
  std::filesystem::path Path(const std::string& name) const { return folder_ / name; }
  std::filesystem::path Scratch(const std::string& worker, const std::string& job) const;

 private:
  const std::filesystem::path folder_;
  const std::string address_;
  std::unique_ptr<Daemon> server_;
  std::map<std::string, std::unique_ptr<Daemon>> workers_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::WorkerService::Stub> leases_;
  int submitted_ = 0;
};

}  // namespace latentforge

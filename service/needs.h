// What a job needs of a worker, and whether a worker has it. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/strings/string_view.h"
#include "latentforge/v1/job_service.pb.h"
#include "latentforge/v1/spec.pb.h"
#include "latentforge/v1/worker_service.pb.h"

namespace latentforge::service {

// What is wrong with a label of a worker or a selector, to go on after it; empty when it is fine.
std::string LabelProblem(absl::string_view key, absl::string_view value);

// A plain value.
struct Needs {
  std::string device;        // "cpu", "cuda", "cuda:1"; empty: any
  int64_t memory_bytes = 0;  // 0: unknown, any worker will do
  std::map<std::string, std::string> labels;

  friend bool operator==(const Needs&, const Needs&) = default;
};

// Memory is rounded up to one of 64 steps between two powers of two, so that jobs of about
// the same size need the same.
Needs NeedsOf(const v1::JobSpec& spec, const v1::Estimate& estimate);

// One text for each value: "cuda 13153337344 disk=nvme zone=a", "" for no needs. The store
// finds jobs by it.
std::string NeedsKey(const Needs& needs);

// The reverse; what it cannot read it leaves out.
Needs ParseNeedsKey(absl::string_view key);

// A worker that does not say how much memory it has takes any job.
bool HasDevice(const v1::WorkerInfo& worker, const Needs& needs);
bool HasMemory(const v1::WorkerInfo& worker, const Needs& needs);
bool HasLabels(const v1::WorkerInfo& worker, const Needs& needs);
bool Meets(const v1::WorkerInfo& worker, const Needs& needs);

// How many GPUs of the worker an attempt occupies: one, when its device is one, or is any and
// the worker has one.
int GpusTaken(const v1::WorkerInfo& worker, const Needs& needs);

// Equal for workers that may take the same jobs.
std::string OfferKey(const v1::WorkerInfo& worker);

}  // namespace latentforge::service

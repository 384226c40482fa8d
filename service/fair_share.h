// Weighted fair share between tenants: start-time fair queueing (Goyal, Vin and Cheng,
// 1996) of jobs, whose length is their estimated seconds. Pure.
//
// A job starts at a virtual time: that at which its tenant's last one ended, or the clock,
// where that is later; it ends its cost / weight later. The earliest start is next, and the
// clock is the start of the job that was taken last. So a tenant that was away, or whose jobs
// could not be taken, goes on at the clock: it has saved up nothing. One that took more
// than its share while others waited goes on later, until they have caught up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "latentforge/v1/job_service.pb.h"

namespace latentforge::service {

// A tenant with a job that may be taken now.
struct Contender {
  double virtual_time = 0;  // at which the tenant's last job ended; 0: it had none
  absl::Time rank_time;     // of the job
  int64_t ordinal = 0;      // of the job
};

// Whose turn it is, as an index: the earliest start; of several, the earliest rank time,
// and of these the oldest job. nullopt when there is none.
std::optional<size_t> NextTurn(const std::vector<Contender>& contenders, double clock);

// What is kept once a job has been taken.
struct Charge {
  double clock = 0;
  double virtual_time = 0;  // of the tenant
};

// Of a job of a tenant whose last one ended at `virtual_time`. `weight` is positive.
Charge ChargeFor(double cost, double weight, double virtual_time, double clock);

// Of one attempt: its estimated seconds, at least 1 and at most a year.
double CostOf(const v1::Estimate& estimate);

}  // namespace latentforge::service

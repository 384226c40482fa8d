// Checks and defaults of what METHOD_LOW_RANK reads of a specification.
#pragma once

#include "latentforge/v1/spec.pb.h"
#include "service/spec_fields.h"

namespace latentforge::service {

// Adds a finding for each field of budget, factorisation, healing and low_rank that METHOD_LOW_RANK
// cannot have so.
void CheckLowRank(const v1::JobSpec& spec, Findings& findings);

// Adds a finding for each field that METHOD_LOW_RANK alone reads.
void CheckNoLowRank(const v1::JobSpec& spec, Findings& findings);

// Fills in the defaults of `factorization` and `low_rank`.
void FillLowRank(v1::JobSpec& spec);

}  // namespace latentforge::service

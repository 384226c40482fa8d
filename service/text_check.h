// What can be said of the texts of a job without a tokenizer.
#pragma once

#include <filesystem>
#include <string>

#include "latentforge/v1/spec.pb.h"
#include "service/spec_fields.h"

namespace latentforge::service {

// The first MiB of a file must be UTF-8: a finding MALFORMED_CORPUS names the byte otherwise.
// Nothing where the file cannot be read, which is another finding.
void CheckIsText(const std::filesystem::path& path, const std::string& field, Findings& findings);

// A finding TOO_FEW_TOKENS where texts cannot hold the tokens that calibration and evaluation
// take of them, whatever the tokenizer. `spec` has its defaults and names files that are there.
// Passing says little: a usual text has a token in four bytes.
void CheckTextsSuffice(const v1::JobSpec& spec, Findings& findings);

}  // namespace latentforge::service

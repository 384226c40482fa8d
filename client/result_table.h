// The table with which a conversion ends.
#pragma once

#include <string>

#include "latentforge/v1/event.pb.h"
#include "latentforge/v1/spec.pb.h"

namespace latentforge::client {

// Perplexity before and after, cache bytes, time and speed of each phase, peak memory,
// the text of the perplexities, and where artifact and report lie. `spec` is that of
// the job.
std::string ResultTable(const v1::ConversionResult& result, const v1::JobSpec& spec);

// The path of a file: URI for people; other URIs as they are.
std::string PathText(const std::string& uri);

// The text as one word of a shell command.
std::string ShellWord(const std::string& text);

}  // namespace latentforge::client

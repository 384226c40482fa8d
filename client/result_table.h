// The table with which a conversion ends.
#pragma once

#include <string>

#include "latentforge/v1/event.pb.h"

namespace latentforge::client {

// Perplexity before and after, cache bytes, time and speed of each phase, peak
// memory, and where artifact and report lie.
std::string ResultTable(const v1::ConversionResult& result);

// The path of a file: URI for people; other URIs as they are.
std::string PathText(const std::string& uri);

// The text as one word of a shell command.
std::string ShellWord(const std::string& text);

}  // namespace latentforge::client

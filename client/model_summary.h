// What `latentforge model inspect` prints.
#pragma once

#include <string>

#include "base/json.h"
#include "checkpoint/inspect.h"

namespace latentforge::client {

std::string ModelTable(const checkpoint::ModelSummary& summary);

// The same for programs; keys in snake case, as in report.json.
Json ModelJson(const checkpoint::ModelSummary& summary);

}  // namespace latentforge::client

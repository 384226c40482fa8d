// The Python model code that every artifact carries, compiled into the library.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"

namespace latentforge::exporter {

struct EmbeddedFile {
  absl::string_view name;
  absl::string_view contents;
};

// client/python/latentforge_model/*.py as they were at build time, sorted by name.
std::vector<EmbeddedFile> ModelCode();

}  // namespace latentforge::exporter

// SHA-256 of memory and files.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge {

// A running SHA-256. Movable; not safe for concurrent use.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(absl::string_view bytes);

  // The digest in lower-case hexadecimal; call once, last.
  std::string Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string Sha256Hex(absl::string_view bytes);

// Reads the file in pieces. Errors as in ReadFile.
absl::StatusOr<std::string> Sha256File(const std::filesystem::path& path);

}  // namespace latentforge

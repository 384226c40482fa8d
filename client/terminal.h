// Where progress is shown. An interface, so that tests can look at the frames.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace latentforge::client {

// Not safe for concurrent use.
class Terminal {
 public:
  virtual ~Terminal() = default;
  virtual bool interactive() const = 0;  // can move its cursor
  virtual bool color() const = 0;
  virtual bool unicode() const = 0;
  virtual int columns() const = 0;  // now; at least 20
  virtual void Write(absl::string_view text) = 0;
};

using GetEnvironment = std::function<std::optional<std::string>(const char* name)>;

// The environment of this process.
std::optional<std::string> GetProcessEnvironment(const char* name);

// The terminal behind a descriptor, which stays the caller's. Not interactive when
// it is no TTY or TERM is "dumb" or empty; no colour when NO_COLOR is set.
class FdTerminal : public Terminal {
 public:
  FdTerminal(int fd, const GetEnvironment& environment);

  bool interactive() const override { return interactive_; }
  bool color() const override { return color_; }
  bool unicode() const override { return unicode_; }
  int columns() const override;
  void Write(absl::string_view text) override;

 private:
  int fd_;
  bool interactive_ = false;
  bool color_ = false;
  bool unicode_ = false;
};

}  // namespace latentforge::client

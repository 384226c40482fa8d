#include "worker/model/torch_guard.h"

#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace latentforge::model {
namespace {

// LibTorch's CPU allocator reports exhaustion as a plain c10::Error.
bool SaysOutOfMemory(absl::string_view message) {
  return absl::StrContains(message, "can't allocate memory") ||
         absl::StrContains(message, "not enough memory") ||
         absl::StrContains(message, "out of memory");
}

absl::Status FromMessage(absl::string_view context, absl::string_view message) {
  const std::string text = absl::StrCat(context, ": ", message);
  return SaysOutOfMemory(message) ? absl::ResourceExhaustedError(text) : absl::InternalError(text);
}

}  // namespace

absl::Status RunGuarded(absl::FunctionRef<absl::Status()> body, absl::string_view context) {
  try {
    const at::NoGradGuard no_grad;
    return body();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat(context, ": ", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    return FromMessage(context, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat(context, ": out of memory"));
  } catch (const std::exception& error) {
    return FromMessage(context, error.what());
  }
}

}  // namespace latentforge::model

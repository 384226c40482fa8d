// Tells ThreadSanitizer what absl::Mutex does. The distribution's Abseil is built
// without it, so that everything a Mutex guards would look like a race. These
// definitions take the place of the library's in the test program, call those, and
// announce each lock and unlock. Conditions that threads wait for must be plain
// bools: the library runs functions on a thread that already announced its unlock.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace {

#define LF_NAME_TEXT_INNER(name) #name
#define LF_NAME_TEXT(name) LF_NAME_TEXT_INNER(name)

// The library's own member function; `signature` is the mangled rest after "5Mutex".
template <typename Function>
Function Real(const char* signature) {
  std::string symbol = "_ZN4absl";
#if ABSL_OPTION_USE_INLINE_NAMESPACE
  const std::string inner = LF_NAME_TEXT(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  absl::StrAppend(&symbol, inner.size(), inner);
#endif
  absl::StrAppend(&symbol, "5Mutex", signature);
  void* const found = dlsym(RTLD_NEXT, symbol.c_str());
  if (found == nullptr) abort();  // another Abseil: this file has to follow it
  return reinterpret_cast<Function>(found);
}

using Plain = void (*)(absl::Mutex*);

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

Mutex::~Mutex() {
  static const auto real = Real<Plain>("D1Ev");
  real(this);
  __tsan_mutex_destroy(this, 0);
}

void Mutex::Lock() {
  static const auto real = Real<Plain>("4LockEv");
  __tsan_mutex_pre_lock(this, 0);
  real(this);
  __tsan_mutex_post_lock(this, 0, 0);
}

void Mutex::Unlock() {
  static const auto real = Real<Plain>("6UnlockEv");
  __tsan_mutex_pre_unlock(this, 0);
  real(this);
  __tsan_mutex_post_unlock(this, 0);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  using Function = bool (*)(Mutex*, const Condition&, Duration);
#if ABSL_OPTION_USE_INLINE_NAMESPACE
  static const auto real = Real<Function>("16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
#else
  static const auto real = Real<Function>("16AwaitWithTimeoutERKNS_9ConditionENS_8DurationE");
#endif
  __tsan_mutex_pre_unlock(this, 0);
  __tsan_mutex_post_unlock(this, 0);
  __tsan_mutex_pre_lock(this, 0);
  const bool result = real(this, condition, timeout);
  __tsan_mutex_post_lock(this, 0, 0);
  return result;
}

ABSL_NAMESPACE_END
}  // namespace absl

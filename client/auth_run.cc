#include "client/auth_run.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "client/output.h"

namespace latentforge::client {
namespace {

// A prefix by which people and scanners of secrets know it, and 256 random bits.
absl::StatusOr<std::string> NewToken() {
  char bytes[32];
  if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
    return absl::InternalError("the system gave no random bytes");
  std::string text = absl::WebSafeBase64Escape(absl::string_view(bytes, sizeof(bytes)));
  text.erase(text.find_last_not_of('=') + 1);
  return absl::StrCat("lft_", text);
}

// Never over a file that is there: it may hold a token in use.
absl::Status WriteSecret(const std::string& path, absl::string_view contents) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus(errno, "making", path);
  if (write(fd.get(), contents.data(), contents.size()) != static_cast<ssize_t>(contents.size()))
    return ErrnoStatus(errno, "writing", path);
  return absl::OkStatus();
}

absl::Status CheckWord(absl::string_view flag, absl::string_view word) {
  if (!word.empty() && word.find_first_of(" \t\r\n#") == absl::string_view::npos)
    return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " is \"", absl::CHexEscape(word), "\", expected one word without blanks"));
}

}  // namespace

absl::Status RunNewToken(const NewTokenOptions& options, const CommandContext& context) {
  LF_RETURN_IF_ERROR(CheckWord("--subject", options.subject));
  LF_RETURN_IF_ERROR(CheckWord("--tenant", options.tenant));
  LF_ASSIGN_OR_RETURN(const std::string token, NewToken());
  LF_RETURN_IF_ERROR(WriteSecret(options.out, absl::StrCat(token, "\n")));
  context.terminal.Write(absl::StrCat("the token is in ", options.out,
                                      "; append this line to the server's --token-file:\n"));
  const absl::Status told =
      PrintOutput(absl::StrCat("sha256:", Sha256Hex(token), " ", options.subject, " ",
                               options.tenant, " ", options.role, "\n"));
  // No server will know a token whose line nobody saw.
  if (!told.ok()) unlink(options.out.c_str());
  return told;
}

}  // namespace latentforge::client

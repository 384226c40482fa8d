#include "client/program_name.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/result_table.h"

namespace latentforge::client {
namespace {

constexpr char kName[] = "latentforge";

}  // namespace

std::string NameToCall(
    absl::string_view argv0, absl::string_view path_variable,
    const std::function<bool(const std::filesystem::path&, const std::filesystem::path&)>& same) {
  if (argv0.find('/') == absl::string_view::npos) return kName;  // the shell found it
  const std::filesystem::path self{std::string(argv0)};
  for (const absl::string_view folder : absl::StrSplit(path_variable, ':', absl::SkipEmpty())) {
    if (same(std::filesystem::path(std::string(folder)) / kName, self)) return kName;
  }
  return ShellWord(self.string());
}

std::string WithProgram(absl::string_view suggestion, absl::string_view program) {
  absl::string_view rest = suggestion;
  if (!absl::ConsumePrefix(&rest, absl::StrCat(kName, " "))) return std::string(suggestion);
  return absl::StrCat(program, " ", rest);
}

}  // namespace latentforge::client

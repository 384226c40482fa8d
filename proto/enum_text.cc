#include "proto/enum_text.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace latentforge {
namespace {

// RANK_ALLOCATION of RankAllocation: the prefix of its values.
std::string ToUpperSnake(absl::string_view camel) {
  std::string snake;
  for (size_t i = 0; i < camel.size(); ++i) {
    if (i > 0 && absl::ascii_isupper(camel[i]) && !absl::ascii_isupper(camel[i - 1])) snake += '_';
    snake += absl::ascii_toupper(camel[i]);
  }
  return snake;
}

}  // namespace

std::string ShortEnumName(const google::protobuf::EnumValueDescriptor& value) {
  if (value.number() == 0) return "";
  const absl::string_view name =
      absl::StripPrefix(value.name(), ToUpperSnake(value.type()->name()) + "_");
  return absl::StrReplaceAll(absl::AsciiStrToLower(name), {{"_", "-"}});
}

}  // namespace latentforge

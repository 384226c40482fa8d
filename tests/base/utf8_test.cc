#include "base/utf8.h"

#include <string>

#include "gtest/gtest.h"

namespace latentforge {
namespace {

TEST(Utf8Test, EndsAtTheFirstWrongByte) {
  const char* good[] = {
      "", "a", "\xC2\x80", "\xE0\xA0\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"};
  for (const absl::string_view text : good) EXPECT_EQ(ValidUtf8Prefix(text), text.size());
  // Continuation first, overlong, surrogate, beyond U+10FFFF, cut off.
  const char* bad[] = {"\x80",
                       "\xC0\x80",
                       "\xE0\x80\x80",
                       "\xED\xA0\x80",
                       "\xF4\x90\x80\x80",
                       "\xF5\x80\x80\x80",
                       "\xE2\x82",
                       "\xC3("};
  for (const absl::string_view text : bad) EXPECT_EQ(ValidUtf8Prefix(text), 0u) << text;
}

TEST(Utf8Test, FindsAWrongByteWhereverItIs) {
  const std::string text(40, 'a');
  for (size_t at = 0; at < text.size(); ++at) {
    std::string wrong = text;
    wrong[at] = '\x80';
    EXPECT_EQ(ValidUtf8Prefix(wrong), at);
    EXPECT_EQ(ValidUtf8Prefix(text.substr(0, at) + "\xC3\xA4" + text), text.size() + at + 2);
  }
}

}  // namespace
}  // namespace latentforge

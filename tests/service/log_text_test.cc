#include "service/log_text.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace latentforge::service {
namespace {

using std::string_literals::operator""s;
using testing::EndsWith;

TEST(LogTextTest, TextStaysAsItIs) {
  for (const char* text : {"", "plain\ttext \\x41", "caf\xC3\xA9", "\xE2\x82\xAC",
                           "\xF0\x9F\x98\x80 \xF4\x8F\xBF\xBF", "\xC2\xA0"})
    EXPECT_EQ(LogText(text, false), text);
}

TEST(LogTextTest, ControlCharactersAreEscaped) {
  EXPECT_EQ(LogText("\x1b[31mred\0\r\x7f"s, false), "\\x1b[31mred\\x00\\x0d\\x7f");
  EXPECT_EQ(LogText("\xC2\x9B"
                    "31m",
                    false),
            "\\xc2\\x9b31m")
      << "CSI in one character";
}

TEST(LogTextTest, WhatIsNoUtf8IsEscaped) {
  EXPECT_EQ(LogText("a\xFFz", false), "a\\xffz");
  EXPECT_EQ(LogText("\xC3", false), "\\xc3");
  EXPECT_EQ(LogText("\xE2\x82", false), "\\xe2\\x82");
  EXPECT_EQ(LogText("\xC0\x80\xC1\xBF", false), "\\xc0\\x80\\xc1\\xbf") << "not the shortest form";
  EXPECT_EQ(LogText("\xE0\x9F\xBF", false), "\\xe0\\x9f\\xbf");
  EXPECT_EQ(LogText("\xED\xA0\x80", false), "\\xed\\xa0\\x80") << "a surrogate";
  EXPECT_EQ(LogText("\xF4\x90\x80\x80", false), "\\xf4\\x90\\x80\\x80") << "above U+10FFFF";
  EXPECT_EQ(LogText("\xC3\x28", false), "\\xc3(");
}

TEST(LogTextTest, LongLinesAreCutAndSaySo) {
  const std::string exact(4096, 'x');
  EXPECT_EQ(LogText(exact, false), exact);
  EXPECT_EQ(LogText(exact + "y", false), exact + "[... cut]");
  EXPECT_EQ(LogText("begin", true), "begin[... cut]");
  // Not within a character, and bounded however much longer escapes are.
  const std::string wide = LogText(std::string(4095, 'x') + "\xC3\xA9", false);
  EXPECT_EQ(wide, std::string(4095, 'x') + "[... cut]");
  const std::string escaped = LogText(std::string(100'000, '\1'), false);
  EXPECT_THAT(escaped, EndsWith("\\x01[... cut]"));
  EXPECT_LE(escaped.size(), 4096u + 9);
}

}  // namespace
}  // namespace latentforge::service

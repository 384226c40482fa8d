#include "service/log_text.h"

#include <cstdint>

#include "absl/strings/str_format.h"
#include "service/attempt_events.h"

namespace latentforge::service {
namespace {

constexpr size_t kMaxLineBytes = 4096;

// The bytes of the character at the beginning of `text`; 0 when they are no shortest form of a
// code point that UTF-8 may hold, or a control character.
size_t PrintableBytes(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return lead == '\t' || (lead >= 0x20 && lead != 0x7F) ? 1 : 0;
  const size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < size) return 0;
  uint32_t code = lead & (0xFF >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kLeast[] = {0xA0, 0x800, 0x10000};  // below 0xA0 they control terminals
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return code >= kLeast[size - 2] && code <= 0x10FFFF && !surrogate ? size : 0;
}

}  // namespace

std::string LogText(absl::string_view line, bool truncated) {
  std::string text;
  while (!line.empty() && text.size() <= kMaxLineBytes) {
    const size_t bytes = PrintableBytes(line);
    if (bytes > 0) {
      text.append(line.data(), bytes);
    } else {
      absl::StrAppendFormat(&text, "\\x%02x", static_cast<unsigned char>(line.front()));
    }
    line.remove_prefix(bytes > 0 ? bytes : 1);
  }
  const bool cut = truncated || text.size() > kMaxLineBytes;
  if (cut) text = Truncated(text, kMaxLineBytes) + "[... cut]";
  return text;
}

}  // namespace latentforge::service

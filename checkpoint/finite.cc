#include "checkpoint/finite.h"

#include <algorithm>
#include <cstring>

namespace latentforge::checkpoint {
namespace {

// A float is NaN or infinite when all bits of its exponent are set.
template <typename Word>
std::optional<int64_t> Find(absl::string_view bytes, Word exponent) {
  constexpr size_t kBlock = 1024;
  const size_t count = bytes.size() / sizeof(Word);
  const auto is_bad = [&](size_t i) {
    Word word;
    std::memcpy(&word, bytes.data() + i * sizeof(Word), sizeof(Word));
    return (word & exponent) == exponent;
  };
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const size_t end = std::min(begin + kBlock, count);
    // Without a branch, so that compilers vectorise it.
    Word bad = 0;
    for (size_t i = begin; i < end; ++i) bad |= static_cast<Word>(is_bad(i));
    if (bad == 0) continue;
    for (size_t i = begin; i < end; ++i) {
      if (is_bad(i)) return static_cast<int64_t>(i);
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<int64_t> FindNonFinite(DType dtype, absl::string_view bytes) {
  switch (dtype) {
    case DType::kF32:
      return Find<uint32_t>(bytes, 0x7f800000);
    case DType::kF16:
      return Find<uint16_t>(bytes, 0x7c00);
    case DType::kBF16:
      return Find<uint16_t>(bytes, 0x7f80);
    default:
      return std::nullopt;
  }
}

}  // namespace latentforge::checkpoint

#include "checkpoint/dtype.h"

#include <array>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace latentforge::checkpoint {
namespace {

struct Row {
  DType dtype;
  absl::string_view name;
  int bits;
};

// In the order of the enumeration, which Find relies on.
constexpr std::array<Row, 22> kRows = {{
    {DType::kBool, "BOOL", 8},
    {DType::kF4, "F4", 4},
    {DType::kF6E2M3, "F6_E2M3", 6},
    {DType::kF6E3M2, "F6_E3M2", 6},
    {DType::kU8, "U8", 8},
    {DType::kI8, "I8", 8},
    {DType::kF8E5M2, "F8_E5M2", 8},
    {DType::kF8E4M3, "F8_E4M3", 8},
    {DType::kF8E8M0, "F8_E8M0", 8},
    {DType::kF8E4M3Fnuz, "F8_E4M3FNUZ", 8},
    {DType::kF8E5M2Fnuz, "F8_E5M2FNUZ", 8},
    {DType::kI16, "I16", 16},
    {DType::kU16, "U16", 16},
    {DType::kF16, "F16", 16},
    {DType::kBF16, "BF16", 16},
    {DType::kI32, "I32", 32},
    {DType::kU32, "U32", 32},
    {DType::kF32, "F32", 32},
    {DType::kC64, "C64", 64},
    {DType::kF64, "F64", 64},
    {DType::kI64, "I64", 64},
    {DType::kU64, "U64", 64},
}};

const Row& Find(DType dtype) { return kRows[static_cast<size_t>(dtype)]; }

}  // namespace

int64_t BitsOf(DType dtype) { return Find(dtype).bits; }

int64_t BytesOf(DType dtype) { return Find(dtype).bits / 8; }

absl::string_view NameOf(DType dtype) { return Find(dtype).name; }

absl::StatusOr<DType> ParseDType(absl::string_view name) {
  for (const Row& row : kRows) {
    if (row.name == name) return row.dtype;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("data type \"", name.substr(0, 40), "\" is none that safetensors has"));
}

absl::StatusOr<DType> ParseTorchDType(absl::string_view name) {
  const absl::string_view plain = absl::StripPrefix(name, "torch.");
  if (plain == "float32") return DType::kF32;
  if (plain == "float16") return DType::kF16;
  if (plain == "bfloat16") return DType::kBF16;
  if (plain == "float64") return DType::kF64;
  return absl::InvalidArgumentError(absl::StrCat(
      "data type is \"", name.substr(0, 40), "\", expected float32, float16, bfloat16 or float64"));
}

bool IsWeightType(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

}  // namespace latentforge::checkpoint

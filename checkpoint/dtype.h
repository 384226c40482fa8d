// Element types of the safetensors format.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace latentforge::checkpoint {

// Every type that safetensors 0.6 names.
enum class DType : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

// Bits of one element; a multiple of 8 for all but the 4- and 6-bit floats.
int64_t BitsOf(DType dtype);

// Bytes of one element. Precondition: not a 4- or 6-bit float (gives 0 there).
int64_t BytesOf(DType dtype);

// The safetensors name: "F32", "BF16".
absl::string_view NameOf(DType dtype);

// The inverse of NameOf. InvalidArgument names an unknown one.
absl::StatusOr<DType> ParseDType(absl::string_view name);

// The name in config.json: "float32", "bfloat16", "float16", "float64", also with
// the prefix "torch.". InvalidArgument names anything else.
absl::StatusOr<DType> ParseTorchDType(absl::string_view name);

// True for the types that model weights may have here: F32, F16, BF16.
bool IsWeightType(DType dtype);

}  // namespace latentforge::checkpoint

// Feeds arbitrary bytes to the safetensors parser and checks what it promises.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using latentforge::checkpoint::BitsOf;
  using latentforge::checkpoint::TensorEntry;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto header = latentforge::checkpoint::ParseSafetensorsHeader(bytes, size);
  if (!header.ok()) return 0;
  uint64_t position = 0;
  for (const TensorEntry& tensor : header->tensors) {
    if (tensor.name.empty() || tensor.begin != position || tensor.end < tensor.begin) abort();
    const auto bits = static_cast<uint64_t>(tensor.num_elements() * BitsOf(tensor.dtype));
    if (bits != 8 * (tensor.end - tensor.begin)) abort();
    position = tensor.end;
  }
  if (header->data_begin + position != size) abort();
  return 0;
}

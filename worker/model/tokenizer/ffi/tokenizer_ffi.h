// The C interface of the Rust library beside it (src/lib.rs): Hugging Face's
// `tokenizers` crate. Only tokenizer.cc uses it.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// Owned by the Rust side; safe for concurrent use through const pointers.
struct LfTokenizer;

// Receives a result or an error message, once; `data` is valid during the call.
struct LfBytesOut {
  void* context;
  void (*sink)(void* context, const uint8_t* data, size_t size);
};
struct LfIdsOut {
  void* context;
  void (*sink)(void* context, const uint32_t* data, size_t size);
};

// Result codes. Any but kLfOk comes with an error message.
enum LfResult : int { kLfOk = 0, kLfInvalid = 1, kLfInternal = 2 };

// Sets `*out` on kLfOk; the caller frees it.
int lf_tokenizer_load(const uint8_t* json, size_t size, LfTokenizer** out, const LfBytesOut* error);
void lf_tokenizer_free(LfTokenizer* tokenizer);

// One more than the largest token id.
uint32_t lf_tokenizer_id_limit(const LfTokenizer* tokenizer);

int lf_tokenizer_encode(const LfTokenizer* tokenizer, const uint8_t* text, size_t size,
                        bool add_special_tokens, const LfIdsOut* ids, const LfBytesOut* error);
int lf_tokenizer_decode(const LfTokenizer* tokenizer, const uint32_t* ids, size_t size,
                        bool skip_special_tokens, const LfBytesOut* text, const LfBytesOut* error);

}  // extern "C"

//! A C interface to the `tokenizers` crate: load, encode, decode.
//!
//! No memory changes owner across the interface except the tokenizer itself:
//! results and error messages go to a callback, which copies what it needs.
//! `tokenizer_ffi.h` declares the same functions for C++.
use std::os::raw::{c_int, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::slice;

/// A loaded tokenizer and one more than its largest token id.
pub struct LfTokenizer {
    tokenizer: tokenizers::Tokenizer,
    id_limit: u32,
}

const OK: c_int = 0;
const INVALID: c_int = 1;
const INTERNAL: c_int = 2;

type BytesSink = extern "C" fn(context: *mut c_void, data: *const u8, size: usize);
type IdsSink = extern "C" fn(context: *mut c_void, data: *const u32, size: usize);

/// Where the bytes of a result or of an error message go.
#[repr(C)]
pub struct BytesOut {
    context: *mut c_void,
    sink: BytesSink,
}

/// Where token ids go.
#[repr(C)]
pub struct IdsOut {
    context: *mut c_void,
    sink: IdsSink,
}

type Failure = (c_int, String);

fn invalid(message: impl ToString) -> Failure {
    (INVALID, message.to_string())
}

fn internal(message: impl ToString) -> Failure {
    (INTERNAL, message.to_string())
}

/// Runs `body`; turns its failure or panic into a code and a message.
fn guarded(error: &BytesOut, body: impl FnOnce() -> Result<(), Failure>) -> c_int {
    let outcome = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(internal("the tokenizers library panicked")));
    match outcome {
        Ok(()) => OK,
        Err((code, message)) => {
            (error.sink)(error.context, message.as_ptr(), message.len());
            code
        }
    }
}

/// A slice from C++, where an empty one may have a null pointer.
unsafe fn input<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if size == 0 {
        &[]
    } else {
        slice::from_raw_parts(data, size)
    }
}

fn load(json: &[u8]) -> Result<LfTokenizer, Failure> {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(invalid)?;
    // A tokenizer.json may carry the truncation and padding of its last training
    // run; a text is always encoded whole here.
    tokenizer.with_truncation(None).map_err(invalid)?;
    tokenizer.with_padding(None);
    let largest = tokenizer.get_vocab(true).into_values().max();
    let largest = largest.ok_or_else(|| invalid("the vocabulary is empty"))?;
    if largest >= i32::MAX as u32 {
        return Err(invalid(format!("token id {largest} does not fit 31 bits")));
    }
    let id_limit = largest + 1;
    Ok(LfTokenizer { tokenizer, id_limit })
}

/// # Safety
/// `json` points to `size` bytes; `out` and `error` are valid.
#[no_mangle]
pub unsafe extern "C" fn lf_tokenizer_load(
    json: *const u8,
    size: usize,
    out: *mut *mut LfTokenizer,
    error: &BytesOut,
) -> c_int {
    guarded(error, || {
        *out = Box::into_raw(Box::new(load(input(json, size))?));
        Ok(())
    })
}

/// # Safety
/// `tokenizer` comes from `lf_tokenizer_load` and is not used again, or is null.
#[no_mangle]
pub unsafe extern "C" fn lf_tokenizer_free(tokenizer: *mut LfTokenizer) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}

#[no_mangle]
pub extern "C" fn lf_tokenizer_id_limit(tokenizer: &LfTokenizer) -> u32 {
    tokenizer.id_limit
}

/// # Safety
/// `text` points to `size` bytes.
#[no_mangle]
pub unsafe extern "C" fn lf_tokenizer_encode(
    tokenizer: &LfTokenizer,
    text: *const u8,
    size: usize,
    add_special_tokens: bool,
    ids: &IdsOut,
    error: &BytesOut,
) -> c_int {
    guarded(error, || {
        let text = std::str::from_utf8(input(text, size))
            .map_err(|e| invalid(format!("text is not UTF-8 at byte {}", e.valid_up_to())))?;
        let encoding = tokenizer
            .tokenizer
            .encode_fast(text, add_special_tokens)
            .map_err(internal)?;
        (ids.sink)(ids.context, encoding.get_ids().as_ptr(), encoding.get_ids().len());
        Ok(())
    })
}

/// # Safety
/// `ids` points to `size` ids.
#[no_mangle]
pub unsafe extern "C" fn lf_tokenizer_decode(
    tokenizer: &LfTokenizer,
    ids: *const u32,
    size: usize,
    skip_special_tokens: bool,
    text: &BytesOut,
    error: &BytesOut,
) -> c_int {
    guarded(error, || {
        let ids = input(ids, size);
        // The library would drop an id that it does not know.
        for (position, id) in ids.iter().enumerate() {
            if tokenizer.tokenizer.id_to_token(*id).is_none() {
                let limit = tokenizer.id_limit;
                return Err(invalid(format!(
                    "token {position} is {id}, which the vocabulary of {limit} ids lacks"
                )));
            }
        }
        let decoded = tokenizer
            .tokenizer
            .decode(ids, skip_special_tokens)
            .map_err(internal)?;
        (text.sink)(text.context, decoded.as_ptr(), decoded.len());
        Ok(())
    })
}

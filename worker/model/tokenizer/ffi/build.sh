#!/bin/sh
# Builds the library into CACHE/KEY, unless it is there.
# Usage: build.sh CARGO CACHE KEY
set -eu
library=$2/$3/liblatentforge_tokenizer.a
[ -f "$library" ] && exit 0
echo "Building the tokenizers crate (about two minutes, once)"
"$1" build --release --locked --quiet --manifest-path "$(dirname "$0")/Cargo.toml" --target-dir "$2/target"
mkdir -p "$2/$3"
# Copy and rename: another build folder may be doing the same.
cp "$2/target/release/liblatentforge_tokenizer.a" "$library.$$"
mv "$library.$$" "$library"

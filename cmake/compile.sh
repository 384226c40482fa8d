#!/usr/bin/env bash
# compile.sh COMPILER ARGUMENT...: compiles through ccache.
#
# Now and then gcc 12 writes a precompiled header that crashes it whenever it is included, and
# ccache would hand that out for ever. So each is tried, and made again while it crashes.
set -uo pipefail
export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime

# Includes what "$@" compiled.
crashes() {
  local arguments=()
  while (($#)); do
    case $1 in
      -o | -c | -x | -MT | -MF) shift ;;
      -MD) ;;
      *) arguments+=("$1") ;;
    esac
    shift
  done
  ! "${arguments[@]}" -x c++ -fsyntax-only /dev/null 2>/dev/null
}

ccache "$@" || exit
case " $* " in
  *" -emit-pch "*) ;; # clang's
  *" -x c++-header "*)
    for _ in 1 2 3; do
      crashes "$@" || exit 0
      echo "the precompiled header crashes the compiler: making it again" >&2
      CCACHE_RECACHE=1 ccache "$@" || exit
    done
    ;;
esac

# Optimisation, warnings, sanitizers and ccache for every target of this project.

# Time goes into LibTorch, SQLite and gRPC, which come compiled: above -O1 a cold build takes a
# fifth longer for nothing. The targets with loops of our own over numbers ask for -O3.
set(CMAKE_CXX_FLAGS_RELEASE "-O1 -DNDEBUG")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_C_COMPILER_LAUNCHER "${CMAKE_CURRENT_LIST_DIR}/compile.sh")
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_C_COMPILER_LAUNCHER})
endif()

add_library(latentforge_warnings INTERFACE)
target_compile_options(latentforge_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Werror=unused-result -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(latentforge_warnings INTERFACE -Wthread-safety -Wno-gnu-zero-variadic-macro-arguments)
else()
  # ccache may only reuse objects built with a precompiled header when gcc
  # preprocesses it in full.
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
endif()

# Some of the libraries ask for it, and shared precompiled headers want the same macros in all.
add_compile_options(-pthread)

# Less than half of GNU ld's time for each of a hundred tests.
add_link_options(-fuse-ld=lld)

if(LATENTFORGE_SANITIZE)
  add_compile_options(-fsanitize=${LATENTFORGE_SANITIZE} -fno-omit-frame-pointer -g1 -O1)
  add_link_options(-fsanitize=${LATENTFORGE_SANITIZE})
  if(LATENTFORGE_SANITIZE MATCHES "thread")
    # gcc 12 takes its own instrumented copies of short strings for ones beyond their end.
    add_compile_options(-Wno-array-bounds -Wno-stringop-overflow -Wno-restrict)
  endif()
  if(LATENTFORGE_SANITIZE MATCHES "undefined")
    # It looks at memory through a pipe: a process without free descriptors, which is what a test
    # makes of the server, would be found guilty.
    add_compile_options(-fno-sanitize=vptr)
    add_link_options(-fno-sanitize=vptr)
  endif()
endif()

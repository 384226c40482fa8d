# One CMake target per module. The DEPS lists are the dependency rules of
# docs/architecture.md: a module can include only what it lists.

# lf_library(NAME SRCS ... DEPS ... [TORCH]): a static library of this project.
# TORCH adds LibTorch with the shared precompiled ATen header.
function(lf_library name)
  cmake_parse_arguments(ARG "TORCH" "" "SRCS;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SRCS})
  target_include_directories(${name} PUBLIC "${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE latentforge_warnings)
  if(ARG_TORCH)
    lf_use_torch(${name})
  endif()
endfunction()

# lf_binary(NAME SRCS ... DEPS ... [TORCH]): an executable, put into bin/.
function(lf_binary name)
  cmake_parse_arguments(ARG "TORCH" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} latentforge_warnings)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
  if(ARG_TORCH)
    lf_use_torch(${name})
  endif()
endfunction()

# lf_test(NAME SRCS ... DEPS ... [TORCH] [TIMEOUT s] [LABELS ...]): a GoogleTest
# program that ctest runs as one test.
function(lf_test name)
  cmake_parse_arguments(ARG "TORCH" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock_main latentforge_warnings)
  target_compile_definitions(${name} PRIVATE
    LATENTFORGE_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
    LATENTFORGE_BINARY_DIR="${CMAKE_BINARY_DIR}"
    LATENTFORGE_DEPS_DIR="${LATENTFORGE_DEPS_DIR}")
  if(ARG_TORCH)
    lf_use_torch(${name})
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

# lf_fuzzer(NAME SRCS ... DEPS ...): a libFuzzer program that `scripts/check fuzz` runs from
# the corpus that write_corpus makes for it: NAME without _fuzzer. Needs clang and
# LATENTFORGE_SANITIZE=fuzzer-no-link,address,undefined.
function(lf_fuzzer name)
  lf_binary(${name} ${ARGN})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endfunction()

# Links LibTorch and reuses one precompiled <ATen/ATen.h> for all its users.
function(lf_use_torch name)
  if(NOT TARGET latentforge_torch_pch)
    find_package(LibTorch REQUIRED GLOBAL)
    file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/torch_pch.cc"
         CONTENT "// Holds the shared precompiled header.\n")
    add_library(latentforge_torch_pch OBJECT "${CMAKE_BINARY_DIR}/torch_pch.cc")
    # The same warnings as its users: gcc refuses a header built with other macros.
    target_link_libraries(latentforge_torch_pch PUBLIC LibTorch::torch_cpu
                          PRIVATE latentforge_warnings)
    target_compile_options(latentforge_torch_pch PRIVATE -Wno-unused-parameter)
    target_precompile_headers(latentforge_torch_pch PRIVATE <ATen/ATen.h>)
  endif()
  target_link_libraries(${name} PUBLIC LibTorch::torch_cpu)
  target_precompile_headers(${name} REUSE_FROM latentforge_torch_pch)
  # LibTorch's headers are not ours to fix.
  target_compile_options(${name} PRIVATE -Wno-unused-parameter)
  # Executables get -fPIE by default, and gcc refuses a header built with -fPIC.
  get_target_property(type ${name} TYPE)
  if(type STREQUAL "EXECUTABLE")
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${name} PRIVATE -fPIC)
  endif()
endfunction()

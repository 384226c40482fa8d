# One CMake target per module. The DEPS lists are the dependency rules of
# docs/architecture.md: a module can include only what it lists.

# lf_library(NAME SRCS ... DEPS ... [TORCH]): a static library of this project.
# TORCH adds LibTorch with the shared precompiled ATen header.
function(lf_library name)
  cmake_parse_arguments(ARG "TORCH" "" "SRCS;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SRCS})
  target_include_directories(${name} PUBLIC "${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE latentforge_warnings)
  lf_set_up(${name} "${ARG_TORCH}")
endfunction()

# lf_binary(NAME SRCS ... DEPS ... [TORCH]): an executable, put into bin/.
function(lf_binary name)
  cmake_parse_arguments(ARG "TORCH" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} latentforge_warnings)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
  lf_set_up(${name} "${ARG_TORCH}")
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
  lf_set_up(${name} "${ARG_TORCH}")
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
  # clang refuses a header that was precompiled with other sanitizers.
  set_target_properties(${name} PROPERTIES DISABLE_PRECOMPILE_HEADERS ON)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endfunction()

# The targets of this folder share one precompiled header of gRPC's, protobuf's and the
# other headers that nearly all of them include; those with TORCH have their own.
macro(lf_precompile_grpc)
  if(NOT TARGET latentforge_grpc_pch)
    lf_shared_header(latentforge_grpc_pch
      <grpcpp/grpcpp.h> <google/protobuf/duration.pb.h> <google/protobuf/timestamp.pb.h>
      <google/protobuf/map.h> <absl/status/statusor.h> <absl/strings/str_format.h>
      <absl/time/time.h> <nlohmann/json.hpp>)
  endif()
  set(LF_SHARED_HEADER latentforge_grpc_pch)
endmacro()

# Links LibTorch and reuses one precompiled <ATen/ATen.h> for all its users.
function(lf_use_torch name)
  if(NOT TARGET latentforge_torch_pch)
    find_package(LibTorch REQUIRED GLOBAL)
    lf_shared_header(latentforge_torch_pch <ATen/ATen.h>)
    target_link_libraries(latentforge_torch_pch PUBLIC LibTorch::torch_cpu)
    target_compile_options(latentforge_torch_pch PRIVATE -Wno-unused-parameter)
  endif()
  target_link_libraries(${name} PUBLIC LibTorch::torch_cpu)
  # LibTorch's headers are not ours to fix.
  target_compile_options(${name} PRIVATE -Wno-unused-parameter)
  lf_reuse_header(${name} latentforge_torch_pch)
endfunction()

# lf_shared_header(NAME HEADER...): precompiles HEADERs for all who reuse them.
function(lf_shared_header name)
  file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/${name}.cc"
       CONTENT "// Holds a shared precompiled header.\n")
  add_library(${name} OBJECT "${CMAKE_BINARY_DIR}/${name}.cc")
  # The same warnings as its users: gcc refuses a header built with other macros.
  target_link_libraries(${name} PRIVATE latentforge_warnings)
  target_precompile_headers(${name} PRIVATE ${ARGN})
endfunction()

function(lf_reuse_header name header)
  target_precompile_headers(${name} REUSE_FROM ${header})
  # Executables get -fPIE by default, and gcc refuses a header built with -fPIC.
  get_target_property(type ${name} TYPE)
  if(type STREQUAL "EXECUTABLE")
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${name} PRIVATE -fPIC)
  endif()
endfunction()

# What every kind of target has in common; TORCH is true or false.
function(lf_set_up name torch)
  if(torch)
    lf_use_torch(${name})
  elseif(LF_SHARED_HEADER)
    lf_reuse_header(${name} ${LF_SHARED_HEADER})
  endif()
endfunction()

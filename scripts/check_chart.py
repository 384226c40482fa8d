#!/usr/bin/env python3
"""Checks the chart with the real helm: lint, render with every set of values in ci/,
validate the manifests against the Kubernetes API, and see that bad values are refused.

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
    ("no claim for the models", ["models.existingClaim="]),
    ("no certificate", ["tls.secretName="]),
    ("no callers", ["auth.secretName="]),
    ("keys in the clear", ["auth.oidc.jwks=http://id.example.com/keys"]),
    ("an issuer without an audience", ["auth.oidc.issuer=https://id.example.com"]),
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


def main():
    helm, chart = sys.argv[1], pathlib.Path(sys.argv[2])
    checked = 0
    value_files = sorted((chart / "ci").glob("*-values.yaml"))
    for values in value_files:
        run(helm, "lint", "--strict", str(chart), "--values", str(values))
        checked += validate(run(helm, "template", "release", str(chart), "--values", str(values)))
    for what, settings in BAD_VALUES:
        flags = [flag for setting in settings for flag in ("--set", setting)]
        done = subprocess.run([helm, "template", "release", str(chart), *flags],
                              capture_output=True, text=True, check=False)
        if done.returncode == 0:
            sys.exit(f"FAIL: the chart accepts {what}: {settings}")
    print(f"OK: {checked} manifests from {len(value_files)} sets of values; "
          f"{len(BAD_VALUES)} bad sets refused")


if __name__ == "__main__":
    main()

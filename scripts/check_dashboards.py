#!/usr/bin/env python3
"""Compiles the chart's dashboards against Grafana's published types, and sees that
broken ones are refused.

Usage: check_dashboards.py GRAFANA CHART

GRAFANA holds node_modules with the TypeScript compiler and Grafana's SDK.
"""

import copy
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

TYPE = pathlib.Path(__file__).with_name("dashboard_type.ts")

# (path in the dashboard, value) that the types must refuse.
BROKEN = [
    (["refresh"], 30),
    (["graphTooltip"], 3),
    (["time"], {"from": "now-6h"}),
    (["schemaVersion"], "39"),
    (["tittle"], "latentforge"),
    (["templating", "list", 0, "type"], "data source"),
    (["panels", 0, "type"], "stats"),
    (["panels", 0, "gridPos", "h"], "5"),
    (["panels", 0, "gridPos", "width"], 8),
    (["panels", 0, "targets", 0, "expr"], None),
    (["panels", 0, "targets", 0, "expression"], "up"),
    (["panels", 0, "targets", 0, "format"], "series"),
    (["panels", 0, "options", "colorMode"], "rainbow"),
    (["panels", 0, "fieldConfig", "defaults", "min"], "0"),
    (["panels", 0, "fieldConfig", "defaults", "units"], "s"),
]


def compile_all(grafana, folder, dashboards):
    """Compiles {name: dashboard}; returns {name: errors}."""
    (folder / "node_modules").symlink_to(grafana / "node_modules")
    shutil.copy(TYPE, folder)
    for name, dashboard in dashboards.items():
        (folder / f"{name}.ts").write_text(
            'import type { Dashboard } from "./dashboard_type";\n'
            f"export const dashboard: Dashboard = {json.dumps(dashboard, indent=2)};\n")
    done = subprocess.run(
        ["node", grafana / "node_modules/typescript/lib/tsc.js", "--noEmit", "--strict",
         "--skipLibCheck", "--target", "es2022", "--module", "preserve",
         *(f"{name}.ts" for name in dashboards)],
        cwd=folder, capture_output=True, text=True, check=False)
    errors = {name: [] for name in dashboards}
    for line in done.stdout.splitlines():
        name = line.split(".ts(")[0]
        if name in errors:
            errors[name].append(line)
        elif not line.startswith(" "):
            sys.exit(f"FAIL: {done.stdout}{done.stderr}")
    if done.returncode != 0 and not any(errors.values()):
        sys.exit(f"FAIL: the compiler ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return errors


def broken(dashboard, path, value):
    result = copy.deepcopy(dashboard)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return result


def main():
    grafana, chart = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    good = {path.stem: json.loads(path.read_text()) for path in sorted((chart / "dashboards").glob("*.json"))}
    if not good:
        sys.exit(f"FAIL: {chart} has no dashboards")
    first = next(iter(good.values()))
    bad = {f"broken_{i}": broken(first, path, value) for i, (path, value) in enumerate(BROKEN)}
    with tempfile.TemporaryDirectory(prefix="lf-dashboards-") as folder:
        errors = compile_all(grafana, pathlib.Path(folder), good | bad)
    for name in good:
        if errors[name]:
            sys.exit(f"FAIL: {chart}/dashboards/{name}.json\n" + "\n".join(errors[name]))
    for name, (path, value) in zip(bad, BROKEN):
        if not errors[name]:
            sys.exit(f"FAIL: the types accept {'.'.join(map(str, path))} = {json.dumps(value)}")
    print(f"OK: {len(good)} dashboards; {len(bad)} broken ones refused")


if __name__ == "__main__":
    main()

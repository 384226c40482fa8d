#!/usr/bin/env python3
"""A real Prometheus scrapes a real server; every expression of the dashboard and
of the alert rules must run there, and the series they are built on must exist.

Usage: prometheus_test.py --server BIN --chart helm/latentforge
"""

import argparse
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

# Series that a server exports from its start, before any job.
REQUIRED = [
    "latentforge_build_info",
    "latentforge_jobs",
    "latentforge_oldest_queued_job_age_seconds",
    "latentforge_worker_slots",
    "latentforge_leases_expired_total",
    "latentforge_attempts_finished_total",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def poll(what, deadline_s, probe):
    """Returns probe()'s first true result; fails with its last one after the deadline."""
    deadline = time.monotonic() + deadline_s
    result = None
    while time.monotonic() < deadline:
        try:
            result = probe()
            if result:
                return result
        except OSError as error:
            result = error
        time.sleep(0.2)
    sys.exit(f"FAIL: {what} did not happen in {deadline_s} s, last seen: {result}")


def expressions(chart):
    dashboard = json.loads((chart / "dashboards/latentforge.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    rules = (chart / "alerts/latentforge.rules.yaml").read_text()
    for expr in re.findall(r"^\s+expr: (.*)$", rules, re.M):
        yield "alert", expr


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--chart", required=True, type=pathlib.Path)
    args = parser.parse_args()
    if not shutil.which("prometheus"):
        sys.exit("FAIL: prometheus is not installed (Debian package prometheus)")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lf-prometheus-"))
    metrics, web = free_port(), free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        f"  - {{job_name: latentforge, static_configs: [{{targets: ['127.0.0.1:{metrics}']}}]}}\n"
    )
    processes = []
    try:
        processes.append(subprocess.Popen(
            [args.server, f"--listen=unix:{folder}/server.sock", f"--database={folder}/jobs.sqlite",
             f"--metrics-address=127.0.0.1:{metrics}"]))
        processes.append(subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{web}", "--log.level=error"]))
        base = f"http://127.0.0.1:{web}/api/v1"

        def query(expr):
            return get(f"{base}/query?" + urllib.parse.urlencode({"query": expr}))

        poll("a scrape", 60, lambda: query('up{job="latentforge"} == 1')["data"]["result"])
        for name in REQUIRED:
            poll(f"series {name}", 15, lambda name=name: query(name)["data"]["result"])
        names = set(get(f"{base}/label/__name__/values")["data"])
        ours = sorted(n for n in names if n.startswith(("latentforge_", "grpc_server_")))
        checked = 0
        for title, expr in expressions(args.chart):
            answer = query(expr)
            if answer["status"] != "success":
                sys.exit(f"FAIL: {title}: {expr}: {answer}")
            # RPC series begin with the first call of a method.
            for metric in re.findall(r"\b(latentforge_[a-z_]+)", expr):
                if metric not in names:
                    sys.exit(f"FAIL: {title}: {expr}: the server exports no {metric}; it exports {ours}")
            checked += 1
        print(f"OK: {checked} expressions, {len(ours)} series names")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

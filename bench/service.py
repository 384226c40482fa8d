#!/usr/bin/env python3
"""Throughput and latencies of the server: durable submits, dispatch, lists, watches.

    service.py --binaries DIR [--store sqlite|postgresql] [--best-of N] [--jobs N] [--watches N]

Each row is a fresh latentforge-server with a fresh database, on a Unix socket; PostgreSQL is
started for it, with its own defaults. Loads come from lf_service_load on the same machine, whose
processor time counts too, and so does whatever else runs there: --best-of repeats each row and
keeps the best. The disk's own limit is printed beside: one file that is written and synced again
and again.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

import common
from private_postgres import running_postgres


@contextlib.contextmanager
def running_server(binaries, folder, database):
    ready = folder / "ready"
    command = [binaries / "latentforge-server", "--listen", f"unix:{folder}/server.sock",
               "--database", database, "--ready-file", ready,
               "--max-watches", 100_000, "--max-watches-per-tenant", 0]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen([str(part) for part in command], stderr=log)
    try:
        while not ready.exists():
            if server.poll() is not None:
                raise SystemExit(f"latentforge-server ended:\n{(folder / 'server.log').read_text()}")
            time.sleep(0.01)
        yield server
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def rss_mib(server):
    for line in pathlib.Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def syncs_per_second(folder, seconds=1.0):
    """Of a small write to one file."""
    with (folder / "sync").open("wb", buffering=0) as file:
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            os.pwrite(file.fileno(), b"x" * 4096, 0)
            os.fdatasync(file.fileno())
            count += 1
    return count / seconds


@contextlib.contextmanager
def fresh_database(store, folder):
    if store == "sqlite":
        yield folder / "jobs.db"
    else:
        with running_postgres() as uri:
            yield uri


class Bench:
    def __init__(self, args):
        self.args = args

    @contextlib.contextmanager
    def server(self):
        with (tempfile.TemporaryDirectory(prefix="lf-bench-") as name,
              fresh_database(self.args.store, folder := pathlib.Path(name)) as database,
              running_server(self.args.binaries, folder, database) as server):
            self.folder = folder
            yield server

    def best(self, measure, value):
        """Of --best-of calls of `measure` the one with the least `value`."""
        return min((measure() for _ in range(self.args.best_of)), key=value)

    def load(self, name, **options):
        command = [self.args.binaries / "lf_service_load", name, "--server",
                   f"unix:{self.folder}/server.sock", "--folder", self.folder / "files"]
        for key, value in options.items():
            command += ["--" + key.replace("_", "-"), value]
        measured = common.run_json(command)
        if measured["errors"]:
            raise SystemExit(f"{name}: {measured['errors']} calls failed: {json.dumps(measured)}")
        return measured

    def submit_once(self, concurrency):
        common.note(f"submit, {concurrency} at a time")
        with self.server():
            syncs = syncs_per_second(self.folder)
            return self.load("submit", jobs=self.args.jobs, concurrency=concurrency) | {"syncs": syncs}

    def submit(self):
        rows = []
        for concurrency in (1, 16, 64, 256):
            found = self.best(lambda: self.submit_once(concurrency),
                              lambda found: -found["per_second"])
            rows.append([concurrency, f"{found['per_second']:.0f}", f"{found['p50_ms']:.1f}",
                         f"{found['p99_ms']:.1f}", f"{found['syncs']:.0f}"])
        print(f"Durable submits of {self.args.jobs} jobs:\n")
        common.table(["at a time", "jobs/s", "p50, ms", "p99, ms", "syncs/s of the disk"], rows)

    def dispatch_once(self, workers):
        common.note(f"dispatch, {workers} workers")
        with self.server():
            return self.load("dispatch", jobs=500, workers=workers, interval_ms=10)

    def dispatch(self):
        rows = []
        for workers in (1, 100):
            found = self.best(lambda: self.dispatch_once(workers), lambda found: found["p99_ms"])
            rows.append([workers] + [f"{found[key]:.1f}" for key in ("p50_ms", "p99_ms", "max_ms")])
        print("From the answer to a submit to the answer to a waiting worker, 500 jobs, one each 10 ms:\n")
        common.table(["workers", "p50, ms", "p99, ms", "longest, ms"], rows)

    def lists_once(self):
        common.note("lists")
        with self.server() as server:
            before = rss_mib(server)
            self.load("submit", jobs=10_000, concurrency=64)
            full = rss_mib(server)
            return self.load("list", jobs=400) | {"before": before, "full": full}

    def lists(self):
        found = self.best(self.lists_once, lambda found: found["p99_ms"])
        print("Pages of 50 queued jobs among 10,000:\n")
        common.table(["p50, ms", "p99, ms", "memory empty, MiB", "memory full, MiB"],
                     [[f"{found['p50_ms']:.1f}", f"{found['p99_ms']:.1f}", f"{found['before']:.0f}",
                       f"{found['full']:.0f}"]])

    def watches_once(self, watches):
        common.note(f"{watches} watches")
        with self.server() as server:
            before = rss_mib(server)
            found = self.load("watch", jobs=50, watches=watches, events=20, interval_ms=1000)
            return found | {"before": before, "after": rss_mib(server)}

    def watches(self):
        rows = []
        for watches in (50, self.args.watches):
            found = self.best(lambda: self.watches_once(watches), lambda found: found["p99_ms"])
            rows.append([watches, found["count"], found["expected"], f"{found['p50_ms']:.1f}",
                         f"{found['p99_ms']:.1f}", f"{found['before']:.0f}", f"{found['after']:.0f}"])
        print("Watches of 50 running jobs with an event a second each, for 20 s; lag from the server's "
              "time of an event to its arrival:\n")
        common.table(["watches", "events", "expected", "p50, ms", "p99, ms", "memory before, MiB",
                      "memory after, MiB"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=pathlib.Path, required=True)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--watches", type=int, default=1000)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--best-of", type=int, default=1, metavar="N")
    parser.add_argument("loads", nargs="*", metavar="LOAD",
                        help="submit, dispatch, lists, watches; all by default")
    bench = Bench(args := parser.parse_args())
    for name in args.loads or ("submit", "dispatch", "lists", "watches"):
        if name not in ("submit", "dispatch", "lists", "watches"):
            parser.error(f"LOAD is {name}, expected submit, dispatch, lists or watches")
        getattr(bench, name)()


if __name__ == "__main__":
    main()

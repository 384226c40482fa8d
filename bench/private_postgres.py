"""A PostgreSQL of the benchmark's own, with the settings that initdb chooses."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

USER = "postgres"


def _programs():
    """The folder of the newest version."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"),
                   key=lambda path: int(path.parts[-3]))
    if not found:
        raise SystemExit("there is no PostgreSQL below /usr/lib/postgresql: apt-get install postgresql-15")
    return found[-1].parent


def _as_user(command):
    """PostgreSQL refuses to run as root."""
    drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"] if os.geteuid() == 0 else []
    return drop + [str(part) for part in command]


@contextlib.contextmanager
def running_postgres():
    """The URI of a fresh, empty database; everything of it goes at the end."""
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="lf-postgres-", ignore_cleanup_errors=True) as name:
        folder = pathlib.Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, USER, USER)
        subprocess.run(_as_user([programs / "initdb", "--pgdata", folder / "data", "--username", USER,
                                 "--encoding", "UTF8", "--locale", "C", "--auth", "trust"]),
                       check=True, stdout=subprocess.DEVNULL, cwd=folder)
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                _as_user([programs / "postgres", "-D", folder / "data", "-k", folder,
                          "-c", "listen_addresses="]), stdout=log, stderr=log, cwd=folder)
        try:
            ask = [programs / "pg_isready", "--quiet", "--host", folder, "--username", USER]
            while subprocess.run(ask, check=False).returncode != 0:
                if server.poll() is not None:
                    raise SystemExit(f"postgres ended:\n{(folder / 'log').read_text()}")
                time.sleep(0.05)
            yield f"postgresql://{USER}@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # without waiting for who is connected
            server.wait()

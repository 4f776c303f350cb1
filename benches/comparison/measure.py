"""Runs commands and measures them: seconds, processors, memory. Sizes of folders, changes to data."""

import os
import subprocess
import sys
import time
from typing import NamedTuple


class Figures(NamedTuple):
    """The cost of one command with all its processes."""

    seconds: float
    cpu: float
    memory: int
    # Bytes that the store grew by, and bytes that went over the limited link; None where they are not asked for.
    stored: int | None = None
    sent: int | None = None


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def run(*command, env=None, stdin=None):
    """Runs a command that is not measured, and returns its output. Ends the comparison if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment(env), input=stdin, check=False)
    if done.returncode:
        sys.exit(f"peers: {' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def timed(command, env=None):
    """Runs a command and returns its `Figures`. Memory is the peak of its largest process."""
    # What others left to be written must not count: at its end a restore of kbak waits for the disk.
    os.sync()
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(env))
    message = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if status:
        sys.exit(f"peers: {' '.join(command)} ended with {status}: {message.decode(errors='replace')[-500:]}")
    return Figures(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10)


def environment(more):
    return {**os.environ, **(more or {})}


def size(folder):
    """The bytes of all files below a folder, holes included."""
    return sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(folder) for name in names)


def files_below(folder):
    """The paths of all regular files below a folder, in the order of their names."""
    paths = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    return sorted(path for path in paths if not os.path.islink(path) and os.path.isfile(path))

"""The work of benches/peers: runs each tool on the same data, in turns, and prints one table for each data set.

peers.py WORK KBAK RESTIC ROUNDS SET...
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import time

WORK, KBAK, RESTIC, ROUNDS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
SETS = sys.argv[5:]

# The time after which kbak believes the times of a file (docs/volumes.md), with a second to spare.
SETTLED = 121
STEPS = [
    ("first", "first backup"),
    ("unchanged", "unchanged"),
    ("clustered", "1 % changed, neighbours"),
    ("scattered", "1 % changed, scattered"),
    ("restore", "full restore"),
    ("one", "restore of one file"),
]


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def timed(command, folder=None):
    """Runs a command. Returns seconds, seconds of processors and MiB of peak memory, of all its processes."""
    # What others left to be written must not count: at its end a restore of kbak waits for the disk.
    os.sync()
    start = time.monotonic()
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    message = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if status:
        sys.exit(f"{command} ended with {status}: {message.decode(errors='replace')[-500:]}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def size(folder):
    """The bytes of all files below a folder."""
    return sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(folder) for name in names)


class Kbak:
    def __init__(self):
        self.name = "kbak"
        self.version = run(KBAK, "--version").strip()
        self.repository = f"{WORK}/kbak"
        self.identity = f"{WORK}/owner.key"
        self.owner = run(KBAK, "keygen", "--no-passphrase", "-o", self.identity).strip()

    def create(self):
        os.makedirs(f"{self.repository}/store")
        os.makedirs(f"{self.repository}/keys")
        run(KBAK, "init", "--repo", self.url(), "--recipient", self.owner, "--single-owner",
            "--identity", self.identity, "--folder", f"{self.repository}/keys")

    def url(self):
        return f"file://{self.repository}/store"

    def stored(self):
        return size(f"{self.repository}/store")

    def backup(self, path):
        return [KBAK, "backup", "--repo", self.url(), "--writer-key", f"{self.repository}/keys/writer.key",
                "--recipient", self.owner, "--path", path]

    def restore(self, path, to):
        return [KBAK, "restore", "latest", "--repo", self.url(), "--signer", f"{self.repository}/keys/kbak.pub",
                "--identity", self.identity, "--to", to]

    def restore_one(self, path, file, to):
        return [*self.restore(path, to), "--item", "path" + path, "--path", file]

    def restored(self, path, to):
        return to


class Restic:
    def __init__(self):
        self.name = "restic"
        self.version = " ".join(run(RESTIC, "version").split()[:2])
        self.repository = f"{WORK}/restic"
        os.environ |= {"RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": f"{WORK}/restic.cache"}

    def create(self):
        run(RESTIC, "init", "-q", "-r", self.repository)

    def stored(self):
        return size(self.repository)

    def backup(self, path):
        return [RESTIC, "-r", self.repository, "backup", path]

    def restore(self, path, to):
        return [RESTIC, "-r", self.repository, "restore", "latest", "--target", to]

    def restore_one(self, path, file, to):
        return [*self.restore(path, to), "--include", f"{path}/{file}"]

    def restored(self, path, to):
        return to + path


class Borg:
    def __init__(self):
        self.name = "borg"
        self.version = run("borg", "--version").strip()
        self.repository = f"{WORK}/borg"
        self.count = 0
        os.environ |= {"BORG_PASSPHRASE": "bench", "BORG_BASE_DIR": f"{WORK}/borg.base"}

    def create(self):
        run("borg", "init", "-e", "repokey-blake2", self.repository)

    def stored(self):
        return size(self.repository)

    def backup(self, path):
        self.count += 1
        return ["borg", "create", "-C", "zstd,3", f"{self.repository}::{self.count}", path]

    def restore(self, path, to):
        os.makedirs(to)
        return ["sh", "-c", 'cd "$1" && exec borg extract "$2"', "sh", to, f"{self.repository}::{self.count}"]

    def restore_one(self, path, file, to):
        os.makedirs(to)
        return ["sh", "-c", 'cd "$1" && exec borg extract "$2" "$3"', "sh", to,
                f"{self.repository}::{self.count}", f"{path}/{file}".lstrip("/")]

    def restored(self, path, to):
        return to + path


class Pipe:
    """tar | zstd | age: no tool that repeats, verifies or finds anything, and so a lower bound of the work."""

    def __init__(self):
        self.name = "tar, zstd, age"
        self.version = "zstd -3 -T2 " + run("zstd", "-V").split(" v")[-1].split(",")[0]
        self.repository = f"{WORK}/pipe"
        self.key = f"{WORK}/pipe.key"
        run("age-keygen", "-o", self.key)
        self.recipient = run("age-keygen", "-y", self.key).strip()

    def create(self):
        os.makedirs(self.repository)

    def stored(self):
        return size(self.repository)

    def backup(self, path):
        script = 'set -o pipefail; tar -C "$1" -cf - . | zstd -3 -T2 -q | age -r "$2" -o "$3/data"; sync "$3/data"'
        return ["bash", "-c", script, "bash", path, self.recipient, self.repository]

    def restore(self, path, to):
        os.makedirs(to)
        script = 'set -o pipefail; age -d -i "$1" "$2/data" | zstd -dq | tar -C "$3" -xf -'
        return ["bash", "-c", script, "bash", self.key, self.repository, to]

    def restored(self, path, to):
        return to


def tools():
    found = [Kbak(), Restic()]
    if shutil.which("borg"):
        found.append(Borg())
    if all(shutil.which(name) for name in ("tar", "zstd", "age", "age-keygen")):
        found.append(Pipe())
    return found


def make_small(folder):
    source = random.Random(1)
    for number in range(200):
        os.makedirs(f"{folder}/{number}")
        for file in range(100):
            with open(f"{folder}/{number}/{file:02}", "wb") as out:
                out.write(source.randbytes(source.randrange(8 << 10)).hex().encode())


def make_large(folder):
    source = random.Random(2)
    os.makedirs(folder)
    with open(f"{folder}/file", "wb") as out:
        for _ in range(1 << 10):
            out.write(source.randbytes(512 << 10).hex().encode())


def make_random(folder):
    source = random.Random(3)
    os.makedirs(folder)
    for number in range(128):
        with open(f"{folder}/{number:03}", "wb") as out:
            out.write(source.randbytes(4 << 20))


def make_mixed(folder):
    """Sources, text, documents and programs as they are on this machine: a Go toolchain, /usr/share, libraries."""
    os.makedirs(folder)
    machine = os.uname().machine
    for path in ("/usr/local/go", "/usr/share", f"/usr/lib/{machine}-linux-gnu"):
        if os.path.isdir(path):
            run("cp", "-a", path, f"{folder}/{os.path.basename(path)}")


MAKERS = {"small": make_small, "large": make_large, "random": make_random, "mixed": make_mixed}


def change(folder, scattered, seed):
    """Changes files that hold 1 % of all bytes: neighbours in one place, or some chosen at random."""
    files = sorted(
        os.path.join(at, name)
        for at, _, names in os.walk(folder)
        for name in names
        if os.path.isfile(os.path.join(at, name)) and not os.path.islink(os.path.join(at, name))
    )
    source = random.Random(seed)
    left = sum(os.path.getsize(file) for file in files) // 100
    if len(files) == 1:
        return change_places(files[0], left, scattered, source)
    if scattered:
        source.shuffle(files)
    else:
        start = source.randrange(len(files))
        files = files[start:] + files[:start]
    for file in files:
        length = os.path.getsize(file)
        if 0 < length <= left:
            with open(file, "r+b") as out:
                out.seek(source.randrange(length))
                out.write(source.randbytes(1))
            left -= length


def change_places(file, length, scattered, source):
    """Changes 1 % of one file: one place, or blocks of 4 KiB all over it."""
    block = 4096 if scattered else length
    with open(file, "r+b") as out:
        for _ in range(length // block):
            out.seek(source.randrange(os.path.getsize(file) - block))
            out.write(source.randbytes(block // 2).hex().encode())


def wait_until_settled(changed):
    left = changed + SETTLED - time.time()
    if left > 0:
        time.sleep(left)


def measure(found, data, order, results, changed, seed):
    """One round: every step with every tool, the tools in `order`. Returns the time of the last change."""
    path = f"{WORK}/{data}"
    for tool in found:
        shutil.rmtree(tool.repository, ignore_errors=True)
        tool.create()

    def note(step, tool, figures, stored=None):
        results.setdefault((step, tool.name), []).append((*figures, stored))

    wait_until_settled(changed)
    for step in ("first", "unchanged", "clustered", "scattered"):
        if step in ("clustered", "scattered"):
            change(path, step == "scattered", seed)
            changed = time.time()
        for tool in order:
            if step != "first" and isinstance(tool, Pipe):
                continue
            before = tool.stored() if step != "first" else 0
            figures = timed(tool.backup(path))
            note(step, tool, figures, tool.stored() - before)
        if step == "first":
            restore_pipe(found, path, note)
    file = one_file(path)
    for tool in order:
        if isinstance(tool, Pipe):
            continue
        to = f"{WORK}/back.{tool.name}"
        note("restore", tool, timed(tool.restore(path, to)))
        run("diff", "-r", "--no-dereference", path, tool.restored(path, to))
        shutil.rmtree(to)
        note("one", tool, timed(tool.restore_one(path, file, to)))
        run("cmp", f"{path}/{file}", f"{tool.restored(path, to)}/{file}")
        shutil.rmtree(to)
    return changed


def restore_pipe(found, path, note):
    """Restores what the pipe stored, before the data is changed: it has no second backup."""
    for tool in found:
        if isinstance(tool, Pipe):
            to = f"{WORK}/back.pipe"
            note("restore", tool, timed(tool.restore(path, to)))
            run("diff", "-r", "--no-dereference", path, to)
            shutil.rmtree(to)


def one_file(path):
    """The path of a file in the middle of the order of names, relative to `path`."""
    files = sorted(
        os.path.relpath(os.path.join(at, name), path)
        for at, _, names in os.walk(path)
        for name in names
        if not os.path.islink(os.path.join(at, name))
    )
    return files[len(files) // 2]


def table(found, data, results):
    files = sum(len(names) for _, _, names in os.walk(f"{WORK}/{data}"))
    print(f"\n{data}: {files:,} files, {size(f'{WORK}/{data}') / 1e6:,.0f} MB\n")
    print("| step | tool | s | s ÷ kbak's | CPU s | memory, MiB | stored, MB |")
    print("|---|---|---|---|---|---|---|")
    for step, text in STEPS:
        ours = None
        for tool in found:
            rounds = results.get((step, tool.name))
            if not rounds:
                continue
            seconds, cpu = (statistics.median(figures[place] for figures in rounds) for place in (0, 1))
            ours = ours or seconds
            stored = "" if rounds[-1][3] is None else f"{statistics.median(r[3] for r in rounds) / 1e6:,.1f}"
            memory = max(figures[2] for figures in rounds)
            print(f"| {text} | {tool.name} | {seconds:.2f} | {seconds / ours:.2f} | {cpu:.2f} | {memory} | {stored} |")


def main():
    found = tools()
    tables = []
    for data in SETS:
        say(f"making the data: {data}")
        MAKERS[data](f"{WORK}/{data}")
        changed, results = time.time(), {}
        for number in range(ROUNDS):
            say(f"{data}: round {number + 1}")
            order = found if number % 2 == 0 else found[::-1]
            changed = measure(found, data, order, results, changed, number)
        tables.append((data, results))
        if data != SETS[-1]:
            table(found, data, results)
            shutil.rmtree(f"{WORK}/{data}")
    print(f"\n{', '.join(tool.version for tool in found)}; {os.cpu_count()} processors; median of {ROUNDS}")
    table(found, *tables[-1])


main()

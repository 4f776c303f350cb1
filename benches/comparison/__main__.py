"""The work of benches/peers: runs each tool on the same data, in turns, and prints one table for each set and store.

benches/peers starts it, with the servers and tools that it needs.
"""

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import sys
import time

import disk
import necessary
import sets
import stores
import tools
from measure import Figures, files_below, run, say, size, timed

# The time after which kbak believes the times of a file (docs/volumes.md), with a second to spare.
SETTLED = 121
STEPS = {
    "first": "first backup",
    "unchanged": "unchanged",
    "clustered": "1 % changed, neighbours",
    "scattered": "1 % changed, scattered",
    "memory": "full restore to memory",
    "disk": "full restore to the disk",
    "one": "restore of one file",
}
STORES = ("file", "tmpfs", "s3", "link")
BACKUPS = ("first", "unchanged", "clustered", "scattered")
END = "<!-- end -->"


def arguments():
    def some_of(known):
        def check(text):
            names = text.split(",")
            wrong = [name for name in names if name not in known]
            if wrong:
                raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: not among {', '.join(known)}")
            return names

        return check

    known = [tool.short for tool, _, _ in tools.ALL]
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="benches/peers",
        description="kbak beside other tools on this machine, in one run. Each step is run ROUNDS times with every "
        "tool that is here, in an order that alternates; the median counts. Figures of other runs or machines are "
        "not comparable: the ratios are what is meant.",
        epilog="KBAK, RESTIC, KOPIA, RUSTIC and BORG name other programs than the one that is built and those on PATH. "
        "Lists are separated by commas.",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sets", type=some_of(sets.ALL), default=["mixed"], help=", ".join(sets.ALL))
    parser.add_argument("--stores", type=some_of(STORES), default=STORES,
                        help="file: on the disk; tmpfs: in memory; s3; link: S3 behind a slow link, which needs root")
    parser.add_argument("--steps", type=some_of((*STEPS, "necessary")), default=[*STEPS, "necessary"],
                        help=f"{', '.join(STEPS)}, necessary: the steps without which no backup can be, measured "
                        "apart; a first backup is always made")
    parser.add_argument("--tools", type=some_of(known), help=f"{', '.join(known)}; all that are here without it")
    parser.add_argument("--scale", type=float, default=1.0, help="how large the sets are made, but for mixed")
    parser.add_argument("--rate", type=int, default=100, help="of the link, in Mbit/s")
    parser.add_argument("--delay", type=float, default=50.0, help="of the link, in ms for there and back")
    parser.add_argument("--apart", action="store_true", help="the tools on one half of the processors, the S3 server on "
                        "the other: it computes an MD5 and more of each object, which is no tool's own work")
    parser.add_argument("--level", type=int, default=2, help="kbak's level of zstd, for the necessary steps")
    parser.add_argument("--memory-folder", default="/dev/shm", help="a folder in memory, for restores")
    parser.add_argument("--into", metavar="FILE", help="write the tables into this page, after the line that names the same command, too")
    parser.add_argument("--work", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--only-check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_check:
        sys.exit()
    return options


class Comparison:
    """One data set on one store: its rounds and their figures."""

    def __init__(self, options, found, data, store, targets, changed):
        self.options, self.data, self.store, self.targets = options, data, store, targets
        self.tools = [tool for tool in found if store.kind in tool.stores]
        self.path = f"{options.work}/{data}"
        self.changed, self.results = changed, {}
        self.places = {tool.name: store.place(tool) for tool in self.tools}

    def wanted(self, step):
        return step in self.options.steps

    def timed(self, tool, command):
        place = self.places[tool.name]
        before = self.store.sent()
        figures = timed([*place.prefix, *command], env=tool.environment(place))
        return figures if before is None else figures._replace(sent=self.store.sent() - before)

    def note(self, step, tool, figures):
        self.results.setdefault((step, tool.name), []).append(figures)

    def round(self, number, seed):
        """Every step with every tool, in turns."""
        order = self.tools if number % 2 == 0 else self.tools[::-1]
        for tool in self.tools:
            self.store.clear(self.places[tool.name])
            tool.forget()
            if tool.backs_up:
                tool.create(self.places[tool.name])
        left = self.changed + SETTLED - time.time()
        if self.wanted("unchanged") and left > 0:
            time.sleep(left)
        self.back_up("first", [tool for tool in order if tool.backs_up])
        # Of these there is no second backup: they are restored before the data is changed.
        once = [tool for tool in order if not tool.repeats]
        again = [tool for tool in order if tool.repeats]
        self.restore(once, number == 0)
        if self.wanted("unchanged"):
            self.back_up("unchanged", again)
        for step in ("clustered", "scattered"):
            if self.wanted(step):
                sets.change(self.data, self.path, step == "scattered", seed)
                self.changed = time.time()
                self.back_up(step, again)
        self.restore(again, number == 0)

    def back_up(self, step, order):
        for tool in order:
            place = self.places[tool.name]
            before = self.store.stored(place) if step != "first" else 0
            figures = self.timed(tool, tool.backup(place, self.path))
            self.note(step, tool, figures._replace(stored=self.store.stored(place) - before))

    def restore(self, order, is_compared):
        for step in ("memory", "disk"):
            for tool in order if self.wanted(step) else []:
                with self.targets[step].fresh(self.path) as folder:
                    to = f"{folder}/back"
                    command = tool.restore(self.places[tool.name], self.path, to)
                    if step == "disk":
                        # kbak ends when all of it is on the disk: the others are held to the same.
                        command = ["sh", "-c", '"$@" && sync -f "$0"', folder, *command]
                    self.note(step, tool, self.timed(tool, command))
                    if is_compared:
                        run("diff", "-r", "--no-dereference", self.path, tool.restored(self.path, to))
        if not self.wanted("one"):
            return
        files = files_below(self.path)
        file = os.path.relpath(files[len(files) // 2], self.path)
        for tool in order:
            if tool.repeats:
                with self.targets["memory"].fresh(self.path) as folder:
                    to = f"{folder}/back"
                    command = tool.restore_one(self.places[tool.name], self.path, file, to)
                    self.note("one", tool, self.timed(tool, command))
                    run("cmp", f"{self.path}/{file}", f"{tool.restored(self.path, to)}/{file}")

    def median(self, step, tool):
        """The medians of all rounds, and the largest memory."""
        rounds = self.results.get((step, tool.name))
        if not rounds:
            return None

        def middle(field):
            values = [getattr(figures, field) for figures in rounds]
            return None if values[0] is None else statistics.median(values)

        memory = max(figures.memory for figures in rounds)
        return Figures(middle("seconds"), middle("cpu"), memory, middle("stored"), middle("sent"))

    def table(self):
        files = sum(len(names) for _, _, names in os.walk(self.path))
        is_link = self.store.name == "link"
        yield f"\n{self.data} ({files:,} files, {size(self.path) / 1e6:,.0f} MB), store: {self.store.text}\n"
        head = ["step", "tool", "s", "s ÷ kbak's", "CPU s", "processors busy", "memory, MiB", "stored, MB"]
        head += ["link full"] if is_link else []
        yield f"| {' | '.join(head)} |"
        yield "|---" * len(head) + "|"
        for step, text in STEPS.items():
            ours = None
            for tool in self.tools:
                figures = self.median(step, tool)
                if figures is None:
                    continue
                ours = ours or figures.seconds
                busy = figures.cpu / figures.seconds / len(os.sched_getaffinity(0))
                stored = "" if figures.stored is None else f"{figures.stored / 1e6:,.1f}"
                row = [text, tool.name, f"{figures.seconds:.2f}", f"{figures.seconds / ours:.2f}", f"{figures.cpu:.2f}",
                       f"{busy:.0%}", str(figures.memory), stored]
                if is_link:
                    row.append(f"{figures.sent * 8 / figures.seconds / self.store.rate / 1e6:.0%}")
                yield f"| {' | '.join(row)} |"


def separate(server):
    """Leaves one half of the processors to the tools, and moves the process `server` to the other: their number."""
    processors = sorted(os.sched_getaffinity(0))
    half = len(processors) // 2
    if half == 0:
        sys.exit("peers: --apart needs two processors")
    # A thread that is started meanwhile has the processors of the one that starts it.
    moved, found = set(), set(os.listdir(f"/proc/{server}/task"))
    while found - moved:
        for thread in found - moved:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), processors[half:])
        moved |= found
        found = set(os.listdir(f"/proc/{server}/task"))
    os.sched_setaffinity(0, processors[:half])
    return len(processors) - half


def open_store(options, name, memory):
    if name == "link":
        return stores.LinkStore(options.work, options.rate, options.delay)
    if name == "tmpfs":
        return stores.MemoryStore(memory)
    return stores.S3Store(options.work) if name == "s3" else stores.FileStore(options.work)


def compare(options, found, data, targets, memory):
    """All stores with one data set. Yields the lines of its tables."""
    path = f"{options.work}/{data}"
    say(f"making the data: {data}")
    sets.ALL[data][0](path, options.scale)
    changed, seed, first = time.time(), 0, None
    for name in options.stores:
        store = open_store(options, name, memory)
        comparison = Comparison(options, found, data, store, targets, changed)
        for number in range(options.rounds):
            say(f"{data}, {name}: round {number + 1}")
            comparison.round(number, seed)
            seed += 1
        changed = comparison.changed
        yield from comparison.table()
        ours = [tool for tool in comparison.tools if isinstance(tool, tools.Kbak)]
        if store.kind == "file" and ours:
            first = first or comparison.median("first", ours[0])
        for place in comparison.places.values():
            store.clear(place)
        store.close()
    if "necessary" in options.steps:
        yield from necessary.table(data, necessary.measure_steps(path, memory, options.level), first)
    shutil.rmtree(path)


def find_place(page, command):
    """The text of a page before and after the tables of a command."""
    with open(page, encoding="utf-8") as file:
        text = file.read()
    mark = f"<!-- {command} -->\n"
    if mark not in text:
        sys.exit(f"peers: {page} has no line {mark.strip()}: the tables are written between it and {END}")
    start = text.index(mark) + len(mark)
    return text[:start], text[text.index(END, start):]


def write_into(page, command, lines):
    before, after = find_place(page, command)
    with open(page, "w", encoding="utf-8") as file:
        file.write(before + "\n".join(lines).strip("\n") + "\n\n" + after)


def main():
    options = arguments()
    own = ("--work", options.work, "--into", options.into)
    command = " ".join(["benches/peers", *(argument for argument in sys.argv[1:] if argument not in own)])
    if options.into:
        find_place(options.into, command)
    # So that what is mounted is unmounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    servers = separate(int(os.environ["PEERS_SERVER"])) if options.apart else 0
    found = tools.find_tools(options.work, options.tools, say)
    memory = f"{options.memory_folder}/kbak-peers.{os.getpid()}"
    os.makedirs(memory)
    targets = {"memory": disk.Memory(memory)}
    if "disk" in options.steps:
        targets["disk"] = disk.open_disk(options.work, say)
    try:
        versions = ", ".join(tool.version for tool in found if tool.version)
        processors = len(os.sched_getaffinity(0))
        apart = f", and {servers} for the S3 server" if servers else ""
        lines = [f"`{command}`", "",
                 f"{versions}; {processors} processor{'s'[:processors != 1]}{apart}; medians of {options.rounds}."]
        print("\n".join(lines), flush=True)
        for data in options.sets:
            for line in compare(options, found, data, targets, memory):
                lines.append(line)
                print(line, flush=True)
    finally:
        shutil.rmtree(memory)
    if options.into:
        write_into(options.into, command, lines)


main()

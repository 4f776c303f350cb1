"""Mutates a repository in many ways, and compares the verdicts of kbak with those of this reader."""

import json
import os
import random
import shutil
import subprocess
import tempfile

from __main__ import read_identities, read_pin
from layout import Store
from restore import open_snapshot, tar
from verify import Verifier

# Of how many mutations one is restored, too.
RESTORED = 4


def copy(store, to):
    """Copies a repository; times stay, because they decide what counts."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(store, to)


def objects(root):
    """Returns the keys of all objects."""
    return [entry.key for entry in Store(root).entries]


class Mutation:
    """One change of a repository, made by a seeded generator."""

    def __init__(self, chance, root):
        self.chance, self.root, self.keys = chance, root, objects(root)

    def path(self, key):
        """Returns the file of an object."""
        return os.path.join(self.root, key)

    def read(self, key):
        """Returns the bytes of an object."""
        with open(self.path(key), "rb") as file:
            return file.read()

    def write(self, key, data):
        """Replaces or creates an object, and keeps the time of one that was there."""
        path, times = self.path(key), None
        if os.path.exists(path):
            status = os.stat(path)
            times = (status.st_atime_ns, status.st_mtime_ns)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        if times:
            os.utime(path, ns=times)

    def flip(self):
        """Flips one bit of an object."""
        key = self.chance.choice(self.keys)
        data = bytearray(self.read(key))
        data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        self.write(key, bytes(data))
        return key

    def truncate(self):
        """Cuts an object short, sometimes to nothing."""
        key = self.chance.choice(self.keys)
        data = self.read(key)
        self.write(key, data[: self.chance.choice([0, self.chance.randrange(len(data)), len(data) - 1])])
        return key

    def extend(self):
        """Appends bytes to an object."""
        key = self.chance.choice(self.keys)
        self.write(key, self.read(key) + self.chance.choice([b"\n", b"\0", b"rubbish" * 99]))
        return key

    def remove(self):
        """Removes one object or several."""
        keys = self.chance.sample(self.keys, self.chance.choice([1, 1, 2, 4]))
        for key in keys:
            os.remove(self.path(key))
        return " ".join(keys)

    def swap(self):
        """Swaps the contents of two objects, most often of one kind."""
        one = self.chance.choice(self.keys)
        alike = [key for key in self.keys if key.split("/")[-2:-1] == one.split("/")[-2:-1] and key != one]
        two = self.chance.choice(alike or self.keys)
        first, second = self.read(one), self.read(two)
        self.write(one, second)
        self.write(two, first)
        return f"{one} {two}"

    def replace(self):
        """Replaces an object by another one."""
        one, two = self.chance.sample(self.keys, 2)
        self.write(one, self.read(two))
        return f"{one} {two}"

    def move(self):
        """Stores an object under a key that its author did not choose."""
        key = self.chance.choice(self.keys)
        digit = self.chance.choice("0123456789abcdef")
        at = self.chance.randrange(len(key))
        other = key[:at] + digit + key[at + 1 :]
        data = self.read(key)
        if self.chance.random() < 0.5:
            os.remove(self.path(key))
        self.write(other, data)
        return f"{key} {other}"

    def plant(self):
        """Adds an object of an attacker who may only put."""
        key = self.chance.choice(self.keys)
        folder, name = os.path.split(key)
        digits = lambda n: "".join(self.chance.choices("0123456789abcdef", k=n))  # noqa: E731
        names = [digits(64), f"{digits(64)}-{digits(128)}", f"{10**12 - 1}-{digits(64)}-{digits(128)}", f"{name}-x"]
        names += [f"{digits(64)}-{digits(32)}", f"{digits(64)}.age", "epoch.json", name[:-1] + "g"]
        other = os.path.join(folder, self.chance.choice(names))
        if other in self.keys:
            other = os.path.join(folder, digits(64))
        self.write(other, self.chance.choice([b"", b"{}\n", self.read(key), self.chance.randbytes(100)]))
        return other

    def special(self):
        """Puts a link, a folder or a pipe in the place of an object."""
        key = self.chance.choice(self.keys)
        path = self.path(key)
        os.remove(path)
        match self.chance.randrange(3):
            case 0:
                os.symlink("/dev/null", path)
            case 1:
                os.mkdir(path)
            case _:
                os.mkfifo(path)
        return key

    def text(self):
        """Changes a signed document in a way that keeps it JSON."""
        keys = [key for key in self.keys if self.read(key).startswith(b"{")]
        key = self.chance.choice(keys)
        old, new = self.chance.choice(
            [(b'"good"', b'"gap"'), (b'"seq":', b'"seq":1'), (b"[]", b'["x"]'), (b"\n", b"\r\n"), (b"{", b"{ ")]
        )
        self.write(key, self.read(key).replace(old, new, 1))
        return key

    def age(self):
        """Changes the time at which the store received an object, by more than a year."""
        key = self.chance.choice([key for key in self.keys if "/snapshots/" in key or "/epochs/" in key])
        moved = os.stat(self.path(key)).st_mtime_ns + self.chance.choice([-1, 1]) * 500 * 86_400 * 10**9
        os.utime(self.path(key), ns=(moved, moved))
        return key

    KINDS = (flip, flip, truncate, extend, remove, remove, swap, replace, move, plant, plant, special, text, age)

    def apply(self):
        """Makes one change. Returns its kind and the objects."""
        kind = self.chance.choice(self.KINDS)
        return kind.__name__, kind(self)


def verdict_of_kbak(kbak, store, pin, identity, read_all):
    """Returns the exit code and the faults by object."""
    arguments = [kbak, "verify", "--repo", f"file://{store}", "--signer", pin, "-o", "json"]
    arguments += ["--read-all"] * read_all + (["--identity", identity] if identity else [])
    done = subprocess.run(arguments, capture_output=True, timeout=120, check=False)
    try:
        report = json.loads(done.stdout)
        return done.returncode, {one["object"]: (one["fault"], one["healed"]) for one in report["findings"]}
    except (ValueError, KeyError):
        return done.returncode, {"": done.stderr.decode(errors="replace")}


def verdict_of_reader(store, pin, identity, read_all=True):
    """Returns the exit code and the faults by object."""
    verifier = Verifier(Store(store), read_pin(pin), read_identities(identity) if identity else [], read_all)
    code = verifier.run()
    return code, {key or f"file://{store}": (one["fault"], one["healed"]) for key, one in verifier.findings.items()}


def restored(kbak, store, pin, identity):
    """Returns the differences between what kbak and this reader restore of the latest snapshot."""
    arguments = [kbak, "restore", "latest", "--tar", "--repo", f"file://{store}", "--signer", pin]
    arguments += ["--identity", identity, "--item", tar_item(store, pin, identity)]
    done = subprocess.run(arguments, capture_output=True, timeout=120, check=False)
    ours, theirs = tar(Store(store), read_pin(pin), read_identities(identity)), done.stdout
    if done.returncode == 0 and ours is None:
        # kbak reads ranges of packs whose rest is damaged; this reader reads whole packs.
        return None if verdict_of_reader(store, pin, identity)[0] == 4 else "this reader refuses it"
    if done.returncode != 0:
        return None if ours is None else f"kbak refuses it: {done.stderr.decode(errors='replace')}"
    return None if ours == theirs else "other bytes"


def tar_item(store, pin, identity):
    """Returns the name of the item with a folder; it is the same in every snapshot."""
    if not ITEMS:
        body, _ = open_snapshot(Store(store), read_pin(pin), read_identities(identity))
        ITEMS.extend(item["name"] for item in body["items"] if item["kind"] == "volume")
    return ITEMS[0]


ITEMS = []


DEPTHS = {"presence": (False, False), "bytes": (True, False), "contents": (True, True)}


def run(kbak, store, pin, identity, depth, count, seed):
    """Compares all verdicts. Prints the differences, and returns 1 if there are any."""
    different, codes, (read_all, opens) = 0, {}, DEPTHS[depth]
    key = identity if opens else None
    with tempfile.TemporaryDirectory() as scratch:
        root = os.path.join(scratch, "store")
        for number in range(int(count) + 1):
            copy(store, root)
            chance = random.Random(f"{seed} {depth} {number}")
            what = Mutation(chance, root).apply() if number else ("nothing", "")
            theirs = verdict_of_kbak(kbak, root, pin, key, read_all)
            ours = verdict_of_reader(root, pin, key, read_all)
            codes[theirs[0]] = codes.get(theirs[0], 0) + 1
            wrong = restored(kbak, root, pin, identity) if number % RESTORED == 0 else None
            if wrong:
                different += 1
                print(f"{number}: {what[0]} {what[1]}: restored: {wrong}", flush=True)
            if theirs != ours:
                different += 1
                print(f"{number}: {what[0]} {what[1]}")
                print(f"  kbak   {theirs}\n  reader {ours}", flush=True)
    print(f"{count} mutations, {different} verdicts differ; exit codes of kbak: {dict(sorted(codes.items()))}")
    return 1 if different else 0

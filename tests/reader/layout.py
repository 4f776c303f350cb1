"""Keys of objects, and the listing of a repository in a folder (docs/format.md, "Keys of objects")."""

import os
import re
import stat

HEX = {n: re.compile(f"[0-9a-f]{{{n}}}") for n in (16, 32, 64, 128)}
SEGMENT = re.compile(r"[0-9a-z_-][0-9a-z._-]*")
CLASSES = ("index", "needs", "cache", "record", "state")
RECORDS = ("prune", "drill", "restore", "distrust", "trust", "receipt", "exception", "hold", "retire")
MAX_OBJECT = 72 << 20


def is_hex(text, digits):
    """True for exactly `digits` lower-case hexadecimal digits."""
    return HEX[digits].fullmatch(text) is not None


def is_key(key):
    """True for a key that a repository can hold."""
    return len(key) <= 512 and all(SEGMENT.fullmatch(segment) for segment in key.split("/"))


def is_object_name(name):
    """True for a last segment that only objects have."""
    if name in ("kbak.json", "epoch.json") or is_hex(name.removesuffix(".age"), 64):
        return True
    parts = name.split("-")
    return len(parts) > 1 and is_hex(parts[-2], 64)


class Entry:
    """A listed object; `modified` is in nanoseconds."""

    def __init__(self, key, size, is_file, modified):
        self.key, self.size, self.is_file, self.modified = key, size, is_file, modified


class Store:
    """A repository in a folder. Links, pipes and folders in the place of objects are listed and never opened."""

    def __init__(self, root):
        self.root = root
        self.entries = []
        self._walk("")
        self.entries.sort(key=lambda entry: entry.key)
        self.by_key = {entry.key: entry for entry in self.entries}

    def _walk(self, prefix):
        for found in os.scandir(os.path.join(self.root, prefix)):
            name, key = found.name, prefix + found.name
            if name.startswith(".kbak-") or not is_key(key):
                continue
            is_folder = found.is_dir(follow_symlinks=False)
            if is_folder and not is_object_name(name):
                self._walk(key + "/")
                continue
            status = found.stat(follow_symlinks=False)
            is_file = stat.S_ISREG(status.st_mode)
            if is_file or is_object_name(name):
                size = status.st_size if is_file else 0
                self.entries.append(Entry(key, size, is_file, status.st_mtime_ns))

    def list(self, prefix):
        """Returns the entries whose keys start with `prefix`, ascending."""
        return [entry for entry in self.entries if entry.key.startswith(prefix)]

    def folders(self, prefix):
        """Returns the names of the folders directly under `prefix` that hold objects."""
        rest = (entry.key[len(prefix) :] for entry in self.list(prefix))
        return sorted({name.split("/")[0] for name in rest if "/" in name})

    def get(self, key, limit):
        """Returns the bytes of an object; None if there is none, False for one that cannot be an object."""
        entry = self.by_key.get(key)
        if entry is None:
            return None
        if not entry.is_file or entry.size > limit:
            return False
        with open(os.path.join(self.root, key), "rb") as file:
            return file.read()


def pack_key(folder, domain, pack):
    """Returns the key of a pack; `folder` is that of its epoch, with its slash."""
    return f"{folder}d/{domain}/packs/{pack[:2]}/{pack}"


def object_at(folder, key):
    """Returns (kind, domain, hash) of a key in an epoch's folder; None for a key of another form."""
    segments = key[len(folder) :].split("/")
    match segments:
        case ["epoch.json"]:
            return ("epoch", None, None)
        case ["keys", name] if name.endswith(".age") and is_hex(name[:-4], 64):
            return ("wrap", None, name[:-4])
        case ["bodies", name] if is_hex(name, 64):
            return ("body", None, name)
        case ["snapshots", name] if snapshot_name(name):
            return ("snapshot", None, snapshot_name(name)[1])
        case ["d", domain, "packs", xx, name] if is_hex(domain, 16) and is_hex(name, 64) and xx == name[:2]:
            return ("pack", domain, name)
        case ["d", domain, "index", name] if is_hex(domain, 16) and index_name(name):
            return ("index", domain, index_name(name)[0])
        case ["d", domain, kind, name] if is_hex(domain, 16) and kind in CLASSES[1:] and is_hex(name, 64):
            return (kind, domain, name)
    return None


def snapshot_name(name):
    """Returns the sequence and the hash in the name of a manifest."""
    found = re.fullmatch("([0-9]{12})-([0-9a-f]{64})-[0-9a-f]{128}", name)
    return (int(found[1]), found[2]) if found else None


def index_name(name):
    """Returns the hash and the tag in the name of an index object."""
    found = re.fullmatch("([0-9a-f]{64})-([0-9a-f]{32})", name)
    return (found[1], found[2]) if found else None

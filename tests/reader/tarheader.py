"""Encodes headers of tar members in the one way that a writer encodes them (docs/format.md, "Streams")."""

MAX_ID = 0o7777777
MAX_LONG = 0o77777777777
TYPES = {"file": "0", "sparse": "0", "hardlink": "1", "symlink": "2"}
TYPES |= {"char": "3", "block": "4", "dir": "5", "fifo": "6"}


def pad(data):
    """Appends zeros up to a whole block."""
    return data + bytes(-len(data) % 512)


def block(name, mode=0, uid=0, gid=0, size=0, mtime=0, kind="0", link=b"", user=b"", group=b"", device=(0, 0)):
    """Returns a ustar block."""
    octal = lambda value, digits: f"{value:0{digits}o}".encode() + b"\0"  # noqa: E731
    fits = lambda value, most: value if 0 <= value <= most else 0  # noqa: E731
    owner = lambda text: (text if len(text) < 32 and text.isascii() else b"").ljust(32, b"\0")  # noqa: E731
    fields = [name[:100].ljust(100, b"\0"), octal(mode, 7), octal(fits(uid, MAX_ID), 7), octal(fits(gid, MAX_ID), 7)]
    fields += [octal(fits(size, MAX_LONG), 11), octal(fits(mtime, MAX_LONG), 11), b" " * 8, kind.encode()]
    fields += [link[:100].ljust(100, b"\0"), b"ustar\x0000", owner(user), owner(group)]
    fields += [octal(device[0], 7), octal(device[1], 7), bytes(155 + 12)]
    data = b"".join(fields)
    return data[:148] + f"{sum(data):06o}".encode() + b"\0 " + data[156:]


def record(key, value):
    """Returns a PAX record, whose length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    while length != rest + len(str(length)):
        length = rest + len(str(length))
    return f"{length} ".encode() + key + b"=" + value + b"\n"


def time_text(seconds, nanos):
    """Returns a time as decimal seconds: the value itself, without trailing zeros in its fraction."""
    total = seconds * 10**9 + nanos
    whole, fraction = divmod(abs(total), 10**9)
    text = f"{whole}.{fraction:09}".rstrip("0").rstrip(".")
    return ("-" if total < 0 else "") + text


def is_utf8(data):
    """True for bytes that are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def encode(entry):
    """Returns the header and the map of a member; `entry` has the fields of the test vectors, names as bytes."""
    kind, path, link = entry["type"], entry["path"], entry.get("link", b"")
    user, group = entry.get("user", b""), entry.get("group", b"")
    name = b"GNUSparseFile.0/" + path if kind == "sparse" else path
    name += b"/" if kind == "dir" else b""
    extents, size = entry.get("extents", []), entry.get("size", 0)
    rows = []
    if kind == "sparse":
        end = sum(extents[-1]) if extents else 0
        rows = extents + ([(size, 0)] if end < size else [])
        rows = [(len(rows),), *rows]
    sparse_map = pad("".join(f"{number}\n" for row in rows for number in row).encode())
    stored = len(sparse_map) + (sum(length for _, length in extents) if kind == "sparse" else size)
    fits = lambda text, most: len(text) <= most and text.isascii()  # noqa: E731
    records = b""
    if not all(is_utf8(text) for text in (path, link, user, group)):
        records += record(b"hdrcharset", b"BINARY")
    if kind == "sparse":
        records += record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")
        records += record(b"GNU.sparse.name", path) + record(b"GNU.sparse.realsize", str(size).encode())
    elif path != b"." and not fits(name, 100):
        records += record(b"path", name)
    if not fits(link, 100):
        records += record(b"linkpath", link)
    if stored > MAX_LONG:
        records += record(b"size", str(stored).encode())
    for key in ("uid", "gid"):
        if entry[key] > MAX_ID:
            records += record(key.encode(), str(entry[key]).encode())
    for key, text in ((b"uname", user), (b"gname", group)):
        if not fits(text, 31):
            records += record(key, text)
    seconds, nanos = entry["mtime"]
    if nanos or not 0 <= seconds <= MAX_LONG:
        records += record(b"mtime", time_text(seconds, nanos).encode())
    for attribute, value in entry.get("xattrs", []):
        attribute = attribute.replace(b"%", b"%25").replace(b"=", b"%3D")
        records += record(b"SCHILY.xattr." + attribute, value)
    header = b""
    if records:
        header = block(b"./PaxHeaders/kbak", mode=0o644, size=len(records), kind="x") + pad(records)
    device = entry.get("device", (0, 0))
    mode, uid, gid = entry["mode"], entry["uid"], entry["gid"]
    header += block(name, mode, uid, gid, stored, seconds, TYPES[kind], link, user, group, device)
    return header, sparse_map

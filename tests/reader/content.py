"""Derivations and binary objects (docs/format.md, "Derivations" and the objects after it)."""

import base64
import json
import re
import struct

import age
import blake3
import zstandard

MAX_CHUNK = 8 << 20
MAX_PACK = 64 << 20
MAX_NEEDS = 64 << 20
LIMITS = {"index": 16 << 20, "cache": 32 << 20, "state": 16 << 20, "record": 16 << 20}
KINDS = ("data", "list", "catalog")


class Malformed(Exception):
    """Bytes that no writer makes."""


def derive(context, *material):
    """BLAKE3 in derive_key mode."""
    hasher = blake3.blake3(derive_key_context=context)
    for part in material:
        hasher.update(part)
    return hasher.digest()


def commitment(secret):
    """Returns the commitment to an epoch's secret."""
    return derive("kbak v1 epoch commitment", secret)


def name_id(names_key, kind, name):
    """Returns the id of a plan, domain or item."""
    return blake3.blake3(kind.encode() + b"\0" + name.encode(), key=names_key).digest(length=8).hex()


class DomainKeys:
    """All keys of one domain of one epoch."""

    def __init__(self, secret, domain):
        self.key = derive("kbak v1 domain", secret, domain.encode())
        self.ids = [derive(f"kbak v1 id {kind}", self.key) for kind in KINDS]
        hasher = blake3.blake3(derive_key_context="kbak v1 gear")
        hasher.update(self.key)
        self.gear = struct.unpack("<256Q", hasher.digest(length=2048))

    def chunk_id(self, kind, plain):
        """Returns the id of a chunk; `kind` is 0 data, 1 list, 2 catalog."""
        return blake3.blake3(plain, key=self.ids[kind]).digest()

    def passphrase(self, kind):
        """Returns the passphrase of the symmetric objects of a class."""
        return derive(f"kbak v1 {kind}", self.key).hex()

    def cut(self, path):
        """Returns the cut hash of a path."""
        digest = blake3.blake3(path, key=derive("kbak v1 cut", self.key)).digest(length=8)
        return int.from_bytes(digest, "little")

    def member(self, seen):
        """Returns the digest of a member in the scan cache."""
        return blake3.blake3(seen, key=derive("kbak v1 member", self.key)).digest(length=16)

    def index_tag(self, sha256):
        """Returns the tag at the end of the key of an index object."""
        return blake3.blake3(sha256, key=derive("kbak v1 index tag", self.key)).digest(length=16)

    def chunk_length(self, data, smallest, average, largest):
        """Returns the length of the first chunk of `data`."""
        end = min(len(data), largest)
        if end <= smallest:
            return end
        threshold = (2**64 - 1) // (average - smallest)
        hard, easy = threshold // 4, min(threshold * 4, 2**64 - 1)
        value = 0
        for at in range(smallest - 64, end):
            value = ((value << 1) + self.gear[data[at]]) % 2**64
            if at >= smallest and value < (hard if at < average else easy):
                return at + 1
        return end


def padme(length):
    """Returns the Padmé length of `length` bytes."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mask = (1 << max(exponent - exponent.bit_length(), 0)) - 1
    return (length + mask) & ~mask


def decode_frame(frame, length):
    """Decodes one zstd frame to exactly `length` bytes."""
    if length > MAX_CHUNK:
        raise Malformed("a chunk of more than 8 MiB")
    try:
        decoder = zstandard.ZstdDecompressor(max_window_size=1 << 23).decompressobj()
        plain = decoder.decompress(frame)
    except zstandard.ZstdError as error:
        raise Malformed(f"zstd: {error}") from error
    if len(plain) != length or decoder.unused_data or not decoder.eof:
        raise Malformed("a chunk of another length")
    return plain


def pack_table(plain):
    """Returns the table of a decrypted pack as (id, offset, length, plain length, kind)."""
    count, magic = struct.unpack("<I8s", plain[-12:]) if len(plain) >= 12 else (0, b"")
    start = len(plain) - 12 - 48 * count
    if magic != b"kbakpk01" or start < 16:
        raise Malformed("no table at the end")
    if struct.unpack("<II", plain[start - 8 : start]) != (0x184D2A50, 48 * count + 12):
        raise Malformed("the table's frame")
    table, end = [], 0
    for at in range(start, start + 48 * count, 48):
        entry = struct.unpack("<32sIIIB3s", plain[at : at + 48])
        if entry[1] != end or entry[3] > MAX_CHUNK or entry[4] > 2 or entry[5] != bytes(3):
            raise Malformed("an entry out of place")
        end += entry[2]
        table.append(entry[:5])
    padding = plain[end + 8 : start - 8]
    if plain[end : end + 8] != struct.pack("<II", 0x184D2A51, len(padding)) or any(padding):
        raise Malformed("the padding's frame")
    if end + 8 + len(padding) + 8 != start:
        raise Malformed("frames past the padding")
    return table


def needs(data):
    """Returns the packs of a needs object as a dictionary from hash to size."""
    if data[:8] != b"kbaknd01" or len(data) % 56 != 16:
        raise Malformed("no list of packs")
    packs = [struct.unpack("<32sQ16s", data[at : at + 56]) for at in range(16, len(data), 56)]
    if any(a[0] >= b[0] for a, b in zip(packs, packs[1:])):
        raise Malformed("not ascending")
    if not any(data[8:16]) and any(any(etag) for _, _, etag in packs):
        raise Malformed("fingerprints without a store")
    return {sha256.hex(): size for sha256, size, _ in packs}


class Cursor:
    """Reads fields from the front of binary data."""

    def __init__(self, data, magic):
        if data[:8] != magic:
            raise Malformed("another magic")
        self.data, self.at = data, 8

    def take(self, form, count=1):
        """Returns `count` tuples of a struct."""
        size = struct.calcsize("<" + form)
        if size * count > len(self.data) - self.at:
            raise Malformed("too short")
        rows = [struct.unpack_from("<" + form, self.data, self.at + size * n) for n in range(count)]
        self.at += size * count
        return rows

    def finish(self):
        """Checks that only zeros follow."""
        if any(self.data[self.at :]):
            raise Malformed("padding that is not zero")


def index_header(data):
    """Splits an index object into the run's key, its signature, and the age file."""
    if data[:8] != b"kbakih01" or len(data) < 104:
        raise Malformed("no header of an index object")
    return data[8:40], data[40:104], data[104:]


def index(data, keys):
    """Opens an index object. Returns its packs, each with its size, and its entries."""
    sealed = index_header(data)[2]
    cursor = Cursor(age.decrypt(sealed, LIMITS["index"], passphrase=keys.passphrase("index")), b"kbakix01")
    packs, entries, replaced, zero = cursor.take("IIII")[0]
    cursor.take("32s", replaced)
    rows = cursor.take("32sQB7s", packs)
    found = cursor.take("16sIIII", entries)
    cursor.finish()
    if zero or any(row[2] > 1 or any(row[3]) for row in rows) or any(entry[1] >= packs for entry in found):
        raise Malformed("a field out of range")
    ascending = lambda rows: all(a[0] <= b[0] for a, b in zip(rows, rows[1:]))  # noqa: E731
    if not ascending(rows) or not ascending(found):
        raise Malformed("not ascending")
    return [(row[0].hex(), row[1]) for row in rows], found


def cache_root(plain):
    """Returns the groups of a scan cache's root as (key, hash)."""
    cursor = Cursor(plain, b"kbakcr01")
    count, zero = cursor.take("II")[0]
    groups = cursor.take("Q32s", count)
    cursor.finish()
    if zero:
        raise Malformed("a field that is not zero")
    return [(key, sha256.hex()) for key, sha256 in groups]


def cache_group(plain):
    """Checks a group of a scan cache. Returns its packs, members and slices."""
    cursor = Cursor(plain, b"kbakcg01")
    packs, members, slices, zero = cursor.take("IIII")[0]
    rows = cursor.take("32sQ", packs), cursor.take("16sQ", members), cursor.take("IIIIII32s", slices)
    cursor.finish()
    if zero or any(s[0] >= packs or s[4] + s[5] > s[3] or s[5] == 0 for s in rows[2]):
        raise Malformed("a field out of range")
    if sum(member[1] for member in rows[1]) != sum(one[5] for one in rows[2]):
        raise Malformed("members and slices of different lengths")
    return rows


def list_part(text):
    """Returns the slices of a list part as (pack, size, offset, length, plain length, id, skip, take)."""
    try:
        if not text.endswith(b"\n"):
            raise ValueError("no line end")
        lines = text[:-1].split(b"\n")
        packs = [(str(sha256), int(size)) for sha256, size in json.loads(lines[0])["packs"]]
        slices = []
        for line in lines[1:]:
            number, offset, length, plain, chunk, skip, take = json.loads(line)
            if min(number, offset, length, skip) < 0 or take <= 0 or skip + take > plain or plain > MAX_CHUNK:
                raise ValueError("a number out of range")
            slices.append((*packs[number], offset, length, plain, bytes.fromhex(chunk), skip, take))
        return slices
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Malformed(f"a list part: {error}") from error


def stream_hash(slices):
    """Returns the hash of a stream from its slices."""
    hasher = blake3.blake3()
    for one in slices:
        hasher.update(one[5] + struct.pack("<II", one[6], one[7]))
    return hasher.hexdigest()


def name_bytes(name):
    """Returns the bytes of a name in JSON: a string, or {"b64": …} if it is not UTF-8."""
    return name.encode() if isinstance(name, str) else base64.b64decode(name["b64"], validate=True)


TYPES = ("file", "dir", "symlink", "hardlink", "fifo", "char", "block", "object", "dump")


def catalog(text):
    """Returns the lines of a catalog chunk, each checked."""
    try:
        if not text.endswith(b"\n"):
            raise ValueError("no line end")
        lines = [json.loads(line) for line in text[:-1].split(b"\n")]
        for line in lines:
            name_bytes(line["path"])
            ints = [line["at"], line["len"], *(line.get(name, 0) for name in ("size", "uid", "gid"))]
            if line["type"] not in TYPES or not all(isinstance(n, int) and n >= 0 for n in ints):
                raise ValueError("a field out of range")
            if not re.fullmatch("[0-7]*", line.get("mode") or ""):
                raise ValueError("a mode")
        return lines
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed(f"a catalog: {error}") from error

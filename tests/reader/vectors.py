"""Makes the test vectors: fixed inputs, and what this implementation makes of them (docs/format.md)."""

import hashlib
import json
import os
import struct

import blake3
import content
import signed
import tarheader
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET, NAMES, SEED, RUN = bytes([7] * 32), bytes([8] * 32), bytes([9] * 32), bytes([10] * 32)
WRITER, PLAN, EPOCH, DOMAIN = "1" * 32, "2" * 16, "3" * 32, "4" * 16
FOLDER = f"{WRITER}/{PLAN}/{EPOCH}/"


def random_bytes(seed, length):
    """Returns bytes that look random: BLAKE3's output for a text."""
    return blake3.blake3(seed.encode()).digest(length=length)


def derivations():
    """The keys of epochs and domains, and ids of names."""
    domains = []
    for name in ("coordinator/resources", "path/path/srv/uploads", "claim/shop/größe"):
        keys = content.DomainKeys(SECRET, name)
        texts = ["", "a", "kbak" * 1000]
        domains.append(
            {
                "name": name,
                "key": keys.key.hex(),
                "chunk_ids": [[text, *(keys.chunk_id(n, text.encode()).hex() for n in range(3))] for text in texts],
                "gear_first": [f"{word:016x}" for word in keys.gear[:4]],
                "gear_sha256": hashlib.sha256(struct.pack("<256Q", *keys.gear)).hexdigest(),
                "cut": [[text, f"{keys.cut(text.encode()):016x}"] for text in ("", "a/b", "größe")],
                "member": [[text, keys.member(text.encode()).hex()] for text in ("", "header")],
                "index_tag": [["ab" * 32, keys.index_tag(bytes.fromhex("ab" * 32)).hex()]],
                "passphrases": {kind: keys.passphrase(kind) for kind in ("index", "cache", "record", "state")},
            }
        )
    named = [("plan", "default"), ("plan", "nächtlich"), ("domain", "coordinator/state"), ("item", "path/srv/uploads")]
    return {
        "secret": SECRET.hex(),
        "commitment": content.commitment(SECRET).hex(),
        "domains": domains,
        "names_key": NAMES.hex(),
        "names": [[kind, name, content.name_id(NAMES, kind, name)] for kind, name in named],
        "recipients": [[text, hashlib.sha256(text.encode()).hexdigest()] for text in ("age1example", "ssh-rsa AAAA")],
    }


def cuts():
    """Where the chunker cuts."""
    keys = content.DomainKeys(SECRET, "path/srv/uploads")
    rows = []
    for seed, length, sizes in [
        ("one", 600_000, (4096, 16384, 65536)),
        ("two", 300_000, (16384, 32768, 32768)),
        ("three", 50, (4096, 4096, 4096)),
        ("zeros", 200_000, (4096, 16384, 65536)),
        ("four", 3_000_000, (512 << 10, 1536 << 10, 4 << 20)),
    ]:
        data = bytes(length) if seed == "zeros" else random_bytes(seed, length)
        lengths, at = [], 0
        while at < length:
            lengths.append(keys.chunk_length(data[at : at + sizes[2]], *sizes))
            at += lengths[-1]
        row = {"data": seed, "length": length, "min": sizes[0], "average": sizes[1], "max": sizes[2]}
        rows.append({**row, "chunks": lengths})
    return {"secret": SECRET.hex(), "domain": "path/srv/uploads", "rows": rows}


def signatures():
    """SSHSIGs of lines, signatures of keys, and the header of an index object."""
    public = lambda seed: Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()  # noqa: E731
    sign = lambda seed, message: Ed25519PrivateKey.from_private_bytes(seed).sign(message)  # noqa: E731
    lines = []
    for kind in ("epoch", "manifest", "prune", "drill", "restore", "distrust", "trust", "receipt", "exception"):
        line = json.dumps({"type": kind, "requires": [], "note": "größe"}, separators=(",", ":"), ensure_ascii=False)
        line += "\n"
        lines.append({"type": kind, "line": line, "armor": signed.sign_line(SEED, f"kbak-{kind}-v1", line.encode())})
    digest = hashlib.sha256(b"object").hexdigest()
    keys = {
        "epoch": f"{WRITER}/epochs/{PLAN}-{EPOCH}-{digest}",
        "snapshot": f"{FOLDER}snapshots/{42:012}-{digest}",
        "record": f"{WRITER}/records/receipt/{digest}",
        "report": f"{WRITER}/records/report/{digest}",
    }
    rows = {name: f"{key}-{sign(SEED, signed.key_message(key)).hex()}" for name, key in keys.items()}
    sealed = b"an age file"
    message = b"kbak v1 index\0" + f"{FOLDER}d/{DOMAIN}/index/".encode() + hashlib.sha256(sealed).digest()
    header = b"kbakih01" + public(RUN) + sign(RUN, message)
    return {
        "seed": SEED.hex(),
        "public": signed.public_text(public(SEED)),
        "lines": lines,
        "writer": WRITER,
        "plan": PLAN,
        "epoch": EPOCH,
        "domain": DOMAIN,
        "object": "object",
        "keys": rows,
        "index": {"seed": RUN.hex(), "sealed": sealed.decode(), "header": header.hex()},
    }


def padme():
    """Padded lengths."""
    lengths = [*range(18), *(2**n + d for n in (5, 6, 8, 12, 16, 20, 24, 31, 32, 40) for d in (-1, 0, 1)), 16 << 20]
    return {"rows": [[length, content.padme(length)] for length in sorted(set(lengths))]}


def tar():
    """Headers of tar members. Texts are in hex, for they need not be UTF-8."""
    plain = {"type": "file", "path": b"a", "mode": 0o644, "uid": 0, "gid": 0, "mtime": (0, 0), "size": 1}
    entries = [
        plain,
        {**plain, "path": b".", "type": "dir", "size": 0, "mode": 0o755, "mtime": (1_700_000_000, 0)},
        {**plain, "path": b"d", "type": "dir", "size": 0, "mode": 0o7777, "uid": 0o7777777, "gid": 0o10000000},
        {**plain, "mtime": (-86400, 123456789), "size": 0},
        {**plain, "mtime": (-1, 500_000_000), "uid": 4_294_967_294},
        {**plain, "mtime": (0, 1), "size": 0o77777777777 + 1},
        {**plain, "mtime": (0o77777777777 + 1, 0), "user": b"ada", "group": b"g" * 40},
        {**plain, "path": b"x" * 101},
        {**plain, "path": b"x" * 100},
        {**plain, "path": "größe".encode(), "xattrs": [(b"user.a=b%", b"\0\xff"), (b"user.note", b"")]},
        {**plain, "path": b"not \xff UTF-8\n"},
        {**plain, "path": b"l", "type": "symlink", "size": 0, "link": b"y" * 101},
        {**plain, "path": b"l", "type": "hardlink", "size": 0, "link": b"a"},
        {**plain, "path": b"p", "type": "fifo", "size": 0},
        {**plain, "path": b"c", "type": "char", "size": 0, "device": (1, 3)},
        {**plain, "path": b"b", "type": "block", "size": 0, "device": (0o7777777, 0)},
        {**plain, "path": b"s", "type": "sparse", "size": 3 << 20, "extents": [(1 << 20, 13)]},
        {**plain, "path": b"s", "type": "sparse", "size": 4096, "extents": []},
        {**plain, "path": b"s", "type": "sparse", "size": 9000, "extents": [(0, 1), (8999, 1)]},
    ]
    rows = []
    for entry in entries:
        header, sparse_map = tarheader.encode(entry)
        text = lambda value: value.hex() if isinstance(value, bytes) else value  # noqa: E731
        shown = {key: text(value) for key, value in entry.items()}
        shown["xattrs"] = [[text(part) for part in pair] for pair in entry.get("xattrs", [])]
        rows.append({"entry": shown, "header": header.hex(), "map": sparse_map.hex()})
    return {"rows": rows}


def objects():
    """Plaintexts of binary objects, and a part of a list."""
    packs = [(hashlib.sha256(bytes([n])).digest(), 1000 + n) for n in range(3)]
    packs.sort()
    frames, offset, table = [], 0, b""
    for n, plain in enumerate((b"data" * 10, b"list\n", b"catalog\n")):
        frame = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(plain)
        chunk = hashlib.sha256(plain).digest()
        table += struct.pack("<32sIIIB3x", chunk, offset, len(frame), len(plain), n)
        frames.append([chunk.hex(), frame.hex(), plain.hex()])
        offset += len(frame)
    bare = offset + 16 + len(table) + 12
    padding = content.padme(bare) - bare
    pack = b"".join(bytes.fromhex(frame) for _, frame, _ in frames)
    pack += struct.pack("<II", 0x184D2A51, padding) + bytes(padding)
    pack += struct.pack("<II", 0x184D2A50, len(table) + 12) + table + struct.pack("<I8s", len(frames), b"kbakpk01")
    slices = [
        (packs[1], 0, 100, 4000, b"\x11" * 32, 0, 4000),
        (packs[0], 100, 200, 5000, b"\x22" * 32, 10, 20),
        (packs[1], 300, 50, 60, b"\x33" * 32, 0, 60),
    ]
    order = list(dict.fromkeys(one[0] for one in slices))
    head = json.dumps({"packs": [[sha256.hex(), size] for sha256, size in order]}, separators=(",", ":"))
    rows = [[order.index(s[0]), s[1], s[2], s[3], s[4].hex(), s[5], s[6]] for s in slices]
    part = "\n".join([head, *(json.dumps(row, separators=(",", ":")) for row in rows)]) + "\n"
    stream = content.stream_hash([(0, 0, 0, 0, 0, s[4], s[5], s[6]) for s in slices])
    members = [(b"\x44" * 16, 4000), (bytes(16), 80)]
    padded = lambda data: data + bytes(content.padme(len(data)) - len(data))  # noqa: E731
    group = b"kbakcg01" + struct.pack("<IIII", len(order), len(members), len(slices), 0)
    group += b"".join(struct.pack("<32sQ", *one) for one in order)
    group += b"".join(struct.pack("<16sQ", *one) for one in members)
    group += b"".join(struct.pack("<IIIIII32s", row[0], *row[1:4], *row[5:], s[4]) for row, s in zip(rows, slices))
    entries = sorted([(b"\x11" * 16, 1, 0, 100, 4000), (b"\x22" * 16, 0, 100, 200, 5000)])
    etag = hashlib.sha256(b"d41d8cd98f00b204e9800998ecf8427e").digest()[:16]
    needs = b"kbaknd01" + hashlib.sha256(b"s3://backups/prod").digest()[:8]
    needs += b"".join(struct.pack("<32sQ16s", *packs[n], bytes(16) if n else etag) for n in range(3))
    index = b"kbakix01" + struct.pack("<IIII", 2, len(entries), 1, 0) + b"\x77" * 32
    index += b"".join(struct.pack("<32sQB7x", *packs[n], n) for n in range(2))
    index += b"".join(struct.pack("<16sIIII", *one) for one in entries)
    root = b"kbakcr01" + struct.pack("<II", 2, 0)
    root += struct.pack("<Q32sQ32s", 5, b"\x55" * 32, 2**63, b"\x66" * 32)
    return {
        "packs": [[sha256.hex(), size] for sha256, size in packs],
        "store": "s3://backups/prod",
        "etags": ["d41d8cd98f00b204e9800998ecf8427e", None, None],
        "needs": needs.hex(),
        "needs_without_etags": (
            b"kbaknd01" + bytes(8) + b"".join(struct.pack("<32sQ16x", *one) for one in packs)
        ).hex(),
        "frames": frames,
        "pack": pack.hex(),
        "slices": [[s[0][0].hex(), s[0][1], *s[1:4], s[4].hex(), *s[5:]] for s in slices],
        "part": part,
        "stream_hash": stream,
        "members": [[digest.hex(), length] for digest, length in members],
        "index": {
            "replaced": ["77" * 32],
            "classes": [0, 1],
            "entries": [[one[0].hex(), *one[1:]] for one in entries],
            "plain": padded(index).hex(),
        },
        "cache_group": padded(group).hex(),
        "groups": [[5, "55" * 32], [2**63, "66" * 32]],
        "cache_root": padded(root).hex(),
    }


KINDS = (derivations, cuts, signatures, padme, tar, objects)


def write(folder):
    """Writes one file for each kind of vectors."""
    os.makedirs(folder, exist_ok=True)
    for make in KINDS:
        with open(os.path.join(folder, f"{make.__name__}.json"), "w", encoding="utf-8") as file:
            file.write(json.dumps(make(), indent=1, ensure_ascii=False) + "\n")
    return 0

"""The data sets, each made from a seed, except `mixed`, which is a copy of what this machine has.

Each set has a maker, and two changes of 1 % of its bytes: neighbours in one place, and places all over.
"""

import os
import random
from itertools import accumulate

from measure import files_below, run

MIB = 1 << 20


def write(path, content):
    with open(path, "wb") as out:
        out.write(content)


def make_small(folder, scale):
    """Many small files of hexadecimal digits."""
    source = random.Random(1)
    for number in range(round(200 * scale)):
        os.makedirs(f"{folder}/{number}")
        for file in range(100):
            write(f"{folder}/{number}/{file:02}", source.randbytes(source.randrange(8 << 10)).hex().encode())


def make_million(folder, scale):
    """A million files of up to 200 bytes."""
    source = random.Random(7)
    for number in range(round(1000 * scale)):
        path = f"{folder}/{number % 10}/{number}"
        os.makedirs(path)
        for file in range(1000):
            write(f"{path}/{file:04}", source.randbytes(source.randrange(200)))


def make_large(folder, scale):
    """One file of hexadecimal digits: unique, and half as long when compressed."""
    source = random.Random(2)
    os.makedirs(folder)
    with open(f"{folder}/file", "wb") as out:
        for _ in range(round(1024 * scale)):
            out.write(source.randbytes(512 << 10).hex().encode())


def make_media(folder, scale):
    """Files of 4 MiB that do not compress, like pictures and films."""
    source = random.Random(3)
    os.makedirs(folder)
    for number in range(round(128 * scale)):
        write(f"{folder}/{number:03}", source.randbytes(4 * MIB))


def lines_of_code(source):
    """Lines as a program has them: few words often, most words seldom."""
    letters = "abcdefghijklmnopqrstuvwxyz_"
    words = ["".join(source.choices(letters, k=source.randrange(2, 12))) for _ in range(5000)]
    often = list(accumulate(1 / (rank + 3) for rank in range(len(words))))
    signs = [" ", " ", " ", ".", "(", ") ", ", ", " = ", "::", "; "]
    for _ in range(40_000):
        count = source.randrange(1, 9)
        parts = source.choices(words, cum_weights=often, k=count)
        between = source.choices(signs, k=count)
        yield "    " * source.randrange(4) + "".join(a + b for a, b in zip(parts, between, strict=True)) + "\n"


def make_source(folder, scale):
    """A tree of sources: 20,000 files, most of them short."""
    source = random.Random(4)
    lines = list(lines_of_code(source))
    for number in range(round(400 * scale)):
        path = f"{folder}/{number % 20}/{number}"
        os.makedirs(path)
        for file in range(50):
            length = min(int(source.lognormvariate(4.6, 1.2)) + 1, 20_000)
            write(f"{path}/{file:02}.rs", "".join(source.choices(lines, k=length)).encode())


def program_bytes(source):
    """An endless stream of bytes like those of programs: short sequences, some of them very often."""
    skewed = [min(255, int(source.expovariate(1 / 40))) for _ in range(1 << 16)]
    parts = [bytes(source.choices(skewed, k=source.randrange(4, 48))) for _ in range(60_000)]
    often = list(accumulate(1 / (rank + 50) for rank in range(len(parts))))
    while True:
        yield b"".join(source.choices(parts, cum_weights=often, k=MIB // 24))


def make_binaries(folder, scale):
    """Programs and libraries of up to some MiB."""
    source = random.Random(5)
    content = program_bytes(source)
    os.makedirs(folder)
    for number in range(round(100 * scale)):
        with open(f"{folder}/program-{number:03}", "wb") as out:
            for _ in range(source.randrange(1, 6)):
                out.write(next(content))


def row(source, number):
    name = "".join(source.choices("abcdefghijklmnop", k=8))
    return (f"{number}\t{name}@example.org\t2026-11-{number % 28 + 1:02}\t{source.randrange(10**9)}\t"
            f"{source.choice(('open', 'paid', 'sent', 'closed'))}\t{name} {name[::-1]} street {number % 300}\n")


def make_dumps(folder, scale):
    """Dumps of a table on three days, one after the other."""
    source = random.Random(6)
    os.makedirs(folder)
    with open(f"{folder}/day-1.sql", "w", encoding="ascii") as out:
        out.writelines(row(source, number) for number in range(round(1_500_000 * scale)))
    for day in (2, 3):
        next_day(folder, day, True, source)


def next_day(folder, day, scattered, source):
    """Writes the dump of `day` from that of the day before: 1 % of its rows changed, or as many new at its end."""
    with (open(f"{folder}/day-{day - 1}.sql", encoding="ascii") as before,
          open(f"{folder}/day-{day}.sql", "w", encoding="ascii") as after):
        number = 0
        for number, line in enumerate(before):
            after.write(row(source, number) if scattered and source.random() < 0.01 else line)
        if not scattered:
            after.writelines(row(source, number + new) for new in range(1, number // 100))


def change_dumps(folder, scattered, source):
    """The next day's dump comes, and the oldest goes."""
    days = sorted(int(name.removeprefix("day-").removesuffix(".sql")) for name in os.listdir(folder))
    next_day(folder, days[-1] + 1, scattered, source)
    os.remove(f"{folder}/day-{days[0]}.sql")


def make_images(folder, scale):
    """The image of a machine's disk: holes, and a quarter of it data."""
    source = random.Random(8)
    content = program_bytes(source)
    os.makedirs(folder)
    with open(f"{folder}/disk.img", "wb") as out:
        for place in range(round(512 * scale)):
            out.seek(4 * place * MIB)
            out.write(next(content)[:MIB])
        out.truncate(4 * round(512 * scale) * MIB)


def change_images(folder, scattered, source):
    """Blocks of 4 KiB change in place, in what is no hole."""
    file = f"{folder}/disk.img"
    extents = os.path.getsize(file) // (4 * MIB)
    blocks = extents * MIB // 4096 // 100
    start = source.randrange(extents)
    with open(file, "r+b") as out:
        for number in range(blocks):
            if scattered:
                extent, block = source.randrange(extents), source.randrange(256)
            else:
                extent, block = (start + number // 256) % extents, number % 256
            out.seek(4 * extent * MIB + 4096 * block)
            out.write(source.randbytes(2048).hex().encode())


def make_mixed(folder, _scale):
    """Sources, text, documents and programs as they are on this machine: a Go toolchain, /usr/share, libraries."""
    os.makedirs(folder)
    machine = os.uname().machine
    for path in ("/usr/local/go", "/usr/share", f"/usr/lib/{machine}-linux-gnu"):
        if os.path.isdir(path):
            run("cp", "-a", path, f"{folder}/{os.path.basename(path)}")


def change_files(folder, scattered, source):
    """Changes one byte in each of some files that hold 1 % of all bytes: neighbours, or chosen at random.

    In a set of files that are all larger than that it is one file.
    """
    files = files_below(folder)
    left = sum(map(os.path.getsize, files)) // 100
    if len(files) == 1:
        change_places(files[0], left, scattered, source)
        return
    if scattered:
        source.shuffle(files)
    else:
        start = source.randrange(len(files))
        files = files[start:] + files[:start]
    smallest = min(filter(None, map(os.path.getsize, files)))
    left = max(left, smallest)
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


ALL = {
    "mixed": (make_mixed, change_files),
    "small": (make_small, change_files),
    "source": (make_source, change_files),
    "binaries": (make_binaries, change_files),
    "media": (make_media, change_files),
    "dumps": (make_dumps, change_dumps),
    "images": (make_images, change_images),
    "large": (make_large, change_files),
    "million": (make_million, change_files),
}


def change(name, folder, scattered, seed):
    ALL[name][1](folder, scattered, random.Random(seed))

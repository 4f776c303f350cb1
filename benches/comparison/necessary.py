"""The steps that no backup can do without, each measured apart in one thread, beside kbak's first backup.

Reading, tar, the chunks' names (BLAKE3), compression, its check by decompression, the seal (ChaCha20-Poly1305) and
the packs' hashes (SHA-256). Writing is left out, as is everything that joins the steps.
"""

import os
import re
import shutil

from measure import run, say, timed


def speed_of_openssl(name):
    """Bytes a second of one thread."""
    last = run("openssl", "speed", "-seconds", "2", "-bytes", "65536", "-evp", name).strip().splitlines()[-1]
    return float(last.split()[-1].removesuffix("k")) * 1000


def measure_steps(path, folder, level):
    """Seconds of one processor for each step on the files below `path`. `folder` is in memory."""
    steps = {}
    read = timed(["sh", "-c", 'find "$1" -type f -print0 | xargs -0 cat >/dev/zero', "sh", path])
    steps["read (cat)"] = read.cpu
    # A device that takes everything; for /dev/null itself tar would not read the files.
    packed = timed(["tar", "-C", path, "-cf", "/dev/zero", "."])
    steps["tar, beyond reading"] = max(0.0, packed.cpu - read.cpu)
    tar = f"{folder}/necessary.tar"
    run("tar", "-C", path, "-cf", tar, ".")
    plain = os.path.getsize(tar)
    if shutil.which("b3sum"):
        steps["name (b3sum)"] = timed(["b3sum", "--num-threads", "1", tar]).cpu
    else:
        say("b3sum is not here, and left out of the sum (Debian: b3sum)")
    answer = run("sh", "-c", 'zstd -b"$1" -e"$1" -i1 -B4MiB "$2" 2>&1', "sh", str(level), tar)
    found = re.findall(r"-> *(\d+) .*?([\d.]+) MB/s, *([\d.]+) MB/s", answer.replace("\r", "\n"))
    stored, compress, decompress = (float(number) for number in found[-1])
    steps[f"compress (zstd -b{level} -B4MiB)"] = plain / 1e6 / compress
    steps["verify (decompress)"] = plain / 1e6 / decompress
    steps["seal (openssl, ChaCha20-Poly1305)"] = stored / speed_of_openssl("chacha20-poly1305")
    steps["hash (openssl, SHA-256)"] = stored / speed_of_openssl("sha256")
    os.remove(tar)
    return steps


def table(data, steps, first):
    """The rows for one data set; `first` holds the figures of kbak's first backups, or is None."""
    lines = [f"\n{data}: the necessary steps, one thread each\n", "| step | CPU s |", "|---|---|"]
    lines += [f"| {step} | {seconds:.2f} |" for step, seconds in steps.items()]
    total = sum(steps.values())
    lines.append(f"| sum | {total:.2f} |")
    if first:
        lines.append(f"| kbak, first backup | {first.cpu:.2f} |")
        lines.append(f"| kbak ÷ sum | {first.cpu / total:.2f} |")
    return lines

"""Checks that the examples of docs/format.md are what this reader accepts, and what the test vectors hold."""

import json
import re

import vectors
from repository import check_epoch, check_manifest, check_record
from streams import check_body


def examples(text):
    """Returns every JSON value in the blocks of the document."""
    decoder, found = json.JSONDecoder(), []
    for block in re.findall("```json\n(.*?)```", text, re.DOTALL):
        while block.strip():
            value, end = decoder.raw_decode(block.strip())
            found.append(value)
            block = block.strip()[end:]
    return found


def dumps(text):
    """Checks each line of a dump against the objects of the test vectors. Returns the number of lines."""
    made = vectors.objects()
    plain = [made["pack"], made["needs"], made["cache_root"], made["cache_group"], made["index"]["plain"]]
    plain.append(vectors.signatures()["index"]["header"] + b"age-encr".hex())
    rows = re.findall(r"^    ([0-9a-f]{4})  ([0-9a-f]{6,})(?:…([0-9a-f]{8}))? ", text, re.MULTILINE)
    for offset, start, _ in rows:
        at = int(offset, 16) * 2
        if not any(data[at : at + len(start)] == start for data in plain):
            raise AssertionError(f"{offset} {start} is in no object")
    return len(rows)


def check(path):
    """Checks all examples."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    kinds, manifest = [], None
    for value in examples(text):
        place = [value.get(name) for name in ("writer", "plan", "epoch", "seq")]
        match value.get("type"):
            case "epoch":
                check_epoch(value, *place[:3])
            case "manifest":
                manifest = check_manifest(value, *place)
            case "body":
                check_body(value, manifest)
            case None:
                pass
            case kind:
                check_record(value, place[0], kind)
        kinds.append(value.get("type"))
    print(len(kinds), "examples,", dumps(text), "lines of dumps")
    return 0

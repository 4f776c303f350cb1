"""An independent reader and verifier of kbak repositories, written from docs/format.md.

    python tests/reader verify STORE PIN [IDENTITY]           findings as JSON, and kbak's exit code
    python tests/reader restore STORE PIN IDENTITY OUT [SEQ]  streams as files
    python tests/reader vectors FOLDER                        writes the test vectors
    python tests/reader document FILE                         checks the examples of docs/format.md
    python tests/reader compare KBAK STORE PIN IDENTITY COUNT SEED   mutates, and compares with kbak
"""

import json
import os
import sys

import age
from layout import Store
from repository import MAX_BODY, Repository
from signed import Pin


def read_pin(path):
    """Reads a signers file."""
    with open(path, encoding="utf-8") as file:
        return Pin(file.read())


def read_identities(path):
    """Reads the X25519 identities of an owner's key file."""
    with open(path, encoding="utf-8") as file:
        return [age.identity(line.strip()) for line in file if line.startswith("AGE-SECRET-KEY-")]


def verify(store, pin, identity=None):
    """Prints the findings."""
    from verify import Verifier

    identities = read_identities(identity) if identity else []
    verifier = Verifier(Store(store), read_pin(pin), identities, read_all=True)
    code = verifier.run()
    print(json.dumps({"exit": code, "findings": verifier.findings}, indent=1))
    return code


def restore(store, pin, identity, out, sequence=None):
    """Writes every stream of a snapshot into a folder."""
    from streams import Opened, open_body, stream_bytes

    repository = Repository(Store(store), read_pin(pin))
    found = [(plan, fields) for plan in repository.plans for fields in plan.snapshots()]
    if sequence is not None:
        # A late snapshot counts for who names it.
        found += [(plan, fields) for plan in repository.plans for fields in plan.late]
        found = [one for one in found if one[1]["seq"] == int(sequence)]
    plan, fields = max(found, key=lambda one: (one[1]["seq"], one[1]["end"], one[1]["hash"]))
    records, folder = repository.records[plan.writer], plan.folder(fields["epoch"])
    keys = plan.open_wraps(fields["epoch"], read_identities(identity), records)
    body = open_body(repository.store.get(f"{folder}bodies/{fields['body']}", MAX_BODY), fields, keys[0])
    reader = Opened(repository.store, folder, *keys)
    for domain, name in body["domains"].items():
        reader.name(domain, name)
    for item in body["items"]:
        for stream in item["streams"]:
            ending = {"tar": ".tar", "jsonl": ".jsonl"}.get(stream["format"], "")
            name = "" if stream["format"] == "tar" else "/" + stream["name"]
            path = os.path.join(out, item["name"] + name + ending)
            if ".." in path.split("/"):
                raise ValueError("a name that leads elsewhere")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.writelines(stream_bytes(reader, stream))
            print(path)
    return 0


def vectors(folder):
    """Writes the test vectors."""
    from vectors import write

    return write(folder)


def document(path):
    """Checks the examples of the document."""
    from document import check

    return check(path)


def compare(*arguments):
    """Compares verdicts with those of kbak."""
    from compare import run

    return run(*arguments)


if __name__ == "__main__":
    tasks = {"verify": verify, "restore": restore, "vectors": vectors, "document": document, "compare": compare}
    if len(sys.argv) < 3 or sys.argv[1] not in tasks:
        sys.exit(__doc__)
    sys.exit(tasks[sys.argv[1]](*sys.argv[2:]))

"""An independent reader and verifier of kbak repositories, written from docs/format.md.

    python tests/reader verify STORE PIN [IDENTITY]           findings as JSON, and kbak's exit code
    python tests/reader restore STORE PIN IDENTITY OUT [SEQ]  streams as files
    python tests/reader vectors FOLDER                        writes the test vectors
    python tests/reader document FILE                         checks the examples of docs/format.md
    python tests/reader compare KBAK STORE PIN IDENTITY DEPTH COUNT SEED   mutates, and compares with kbak
        DEPTH: presence, bytes (--read-all), contents (with the identity, too)
"""

import json
import sys

import age
from layout import Store
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
    from restore import write

    return write(Store(store), read_pin(pin), read_identities(identity), out, sequence)


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

"""Signed documents, signed keys of objects, and the pin (docs/format.md, "Signatures")."""

import base64
import hashlib
import json
import re
import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAX_LINE = 1 << 20
MAX_ARMOR = 1024
MAX_DOCUMENT = MAX_LINE + MAX_ARMOR
MAX_INTEGER = (1 << 53) - 1
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
OTHER_OPERATIONS = ("verify:", "write:", "prune:")


class Invalid(Exception):
    """An object that counts for nothing. `fault` is the class of the fault, as kbak names it."""

    def __init__(self, fault, why):
        super().__init__(why)
        self.fault = fault


def strict_json(text):
    """Reads JSON without duplicate keys, floats, and integers beyond 2^53."""

    def no_duplicates(pairs):
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a duplicate key")
        return dict(pairs)

    def integer(digits):
        if abs(int(digits)) > MAX_INTEGER:
            raise ValueError("an integer beyond 2^53")
        return int(digits)

    def refuse(text):
        raise ValueError(f"a number that is no integer: {text}")

    return json.loads(
        text, object_pairs_hook=no_duplicates, parse_int=integer, parse_float=refuse, parse_constant=refuse
    )


def _string(data):
    return struct.pack(">I", len(data)) + data


def _take(data):
    if len(data) < 4:
        raise ValueError("too short")
    length = struct.unpack(">I", data[:4])[0]
    if length > len(data) - 4:
        raise ValueError("too short")
    return data[4 : 4 + length], data[4 + length :]


def public_blob(key):
    """Returns the SSH wire form of an Ed25519 public key of 32 bytes."""
    return _string(b"ssh-ed25519") + _string(key)


def public_text(key):
    """Returns `ssh-ed25519 AAAA…`."""
    return "ssh-ed25519 " + base64.b64encode(public_blob(key)).decode()


def read_public(text):
    """Returns the 32 bytes of `ssh-ed25519 AAAA… [comment]`."""
    words = text.split()
    if len(words) < 2 or words[0] != "ssh-ed25519":
        raise ValueError("not an ssh-ed25519 key")
    key = base64.b64decode(words[1], validate=True)[-32:]
    if public_text(key).split()[1] != words[1]:
        raise ValueError("not an ssh-ed25519 key in its one form")
    return key


def armor(namespace, key, signature):
    """Returns the armored SSHSIG with a raw Ed25519 signature."""
    blob = b"SSHSIG" + struct.pack(">I", 1) + _string(public_blob(key)) + _string(namespace.encode())
    blob += _string(b"") + _string(b"sha512") + _string(_string(b"ssh-ed25519") + _string(signature))
    text = base64.b64encode(blob).decode()
    return "\n".join([BEGIN, *(text[at : at + 70] for at in range(0, len(text), 70)), END]) + "\n"


def sshsig_message(namespace, line):
    """Returns the bytes that an SSHSIG signs."""
    head = b"SSHSIG" + _string(namespace.encode()) + _string(b"") + _string(b"sha512")
    return head + _string(hashlib.sha512(line).digest())


def sign_line(seed, namespace, line):
    """Returns the armored signature of a line, for test vectors."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return armor(namespace, key, private.sign(sshsig_message(namespace, line)))


def verifies(key, message, signature):
    """True if `key` made the raw Ed25519 signature of `message`."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def key_message(unsigned):
    """Returns the bytes that the signature in a key covers."""
    return b"kbak v1 key\0" + unsigned.encode()


class Pin:
    """The keys whose signatures count: an OpenSSH allowed_signers file."""

    def __init__(self, text):
        self.signers = []
        for line in text.splitlines():
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            found = re.fullmatch(r'(\S+) namespaces="([^"]*)" (ssh-ed25519 \S+)(?: .*)?', line)
            if not found:
                raise ValueError("a line of the signers file is not one that is implemented here")
            principals, namespaces, key = found.groups()
            self.signers.append((principals.split(","), namespaces.split(","), read_public(key)))
        self.cut_offs = [cut for line in text.splitlines() if (cut := cut_off(line.strip()))]

    def keys(self, principal, namespace):
        """Returns the keys that are pinned for a writer and a namespace."""
        return [key for who, what, key in self.signers if principal in who and namespace in what]

    def writers(self):
        """Returns the writers for which a key is pinned that may sign manifests."""
        found = {who for whos, what, _ in self.signers if "kbak-manifest-v1" in what for who in whos}
        return sorted(who for who in found if re.fullmatch("[0-9a-f]{32}", who))

    def signed_hash(self, principal, namespace, key):
        """Returns the hash in an object's key if a pinned key signed it."""
        unsigned, _, signature = key.rpartition("-")
        name = unsigned.rsplit("/", 1)[-1].rsplit("-", 1)[-1]
        if not re.fullmatch("[0-9a-f]{64}", name) or not re.fullmatch("[0-9a-f]{128}", signature):
            return None
        message = key_message(unsigned)
        signed = any(verifies(one, message, bytes.fromhex(signature)) for one in self.keys(principal, namespace))
        return name if signed else None


def cut_off(line):
    """Reads a `# kbak-cut-off KEY HASH,…|none REASON` line of a signers file; None for another line."""
    if not line.startswith("# kbak-cut-off"):
        return None
    found = re.fullmatch(r"# kbak-cut-off\s+(ssh-ed25519\s\S+)\s(none|\S+)(?:\s.*)?", line)
    if not found:
        raise ValueError("a line that revokes a key and cannot be read")
    last_good = [] if found[2] == "none" else [one.removeprefix("sha256:") for one in found[2].split(",")]
    if not all(re.fullmatch("[0-9a-f]{64}", one) for one in last_good):
        raise ValueError("a line that revokes a key and cannot be read")
    return {"key": public_text(read_public(found[1])), "last_good": last_good}


def parse_document(data):
    """Splits a signed document. Returns its line, namespace, key and raw signature, none of them verified."""
    end = data.find(b"\n") + 1
    if len(data) > MAX_DOCUMENT or not 0 < end <= MAX_LINE or len(data) - end > MAX_ARMOR:
        raise Invalid("signature", "it is not one line and one signature")
    try:
        data[:end].decode()
        text = data[end:].decode("ascii")
        blob = base64.b64decode("".join(text.split("\n")[1:-2]), validate=True)
        if not blob.startswith(b"SSHSIG" + struct.pack(">I", 1)):
            raise ValueError("no SSHSIG of version 1")
        fields, rest = [], blob[10:]
        for _ in range(5):
            field, rest = _take(rest)
            fields.append(field)
        key, namespace = fields[0][-32:], fields[1].decode()
        signature, _ = _take(_take(fields[4])[1])
        if armor(namespace, key, signature) != text or len(signature) != 64:
            raise ValueError("not in canonical form")
    except (ValueError, IndexError) as error:
        raise Invalid("signature", f"its signature is not in canonical form: {error}") from error
    return data[:end], namespace, key, signature


def open_document(data, pin, principal, namespace):
    """Verifies a signed document. Returns its fields and the key that signed it."""
    line, found, key, signature = parse_document(data)
    if found != namespace or key not in pin.keys(principal, namespace):
        raise Invalid("signature", "no pinned key signed it")
    if not verifies(key, sshsig_message(namespace, line), signature):
        raise Invalid("signature", "its signature does not match its content")
    try:
        fields = strict_json(line)
    except (ValueError, RecursionError) as error:
        raise Invalid("signature", f"not strict JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("type") != namespace[5:-3]:
        raise Invalid("signature", "its type is not that of its signature")
    check_requires(fields.get("requires", []))
    return fields, key


def check_requires(requires):
    """Refuses a document that needs a feature of its readers. This reader has no features."""
    if not isinstance(requires, list) or not all(isinstance(entry, str) for entry in requires):
        raise Invalid("signature", "requires is not a list of strings")
    for entry in requires:
        if not entry.startswith(OTHER_OPERATIONS):
            raise Invalid("newer", f"it needs {entry}")

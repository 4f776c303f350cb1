"""Decrypts age files (age-encryption.org/v1) with X25519 identities or with a passphrase of work factor 1."""

import base64
import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAX_HEADER = 4096
BLOCK = 64 << 10
CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


class AgeError(Exception):
    """Not an age file, or one whose bytes were changed."""


class WrongKey(AgeError):
    """The file is encrypted to other keys."""


def bech32_decode(text):
    """Returns the prefix and the bytes of a Bech32 text (BIP 173, without its limit of 90 characters)."""
    if text.lower() != text and text.upper() != text:
        raise ValueError("mixed case")
    prefix, _, data = text.lower().rpartition("1")
    values = [CHARSET.index(c) for c in data]
    if _polymod([ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + values) != 1:
        raise ValueError("a wrong checksum")
    number, bits, out = 0, 0, bytearray()
    for value in values[:-6]:
        number, bits = (number << 5 | value) & 0xFFF, bits + 5
        if bits >= 8:
            bits -= 8
            out.append(number >> bits & 0xFF)
    if bits >= 5 or number & ((1 << bits) - 1):
        raise ValueError("padding")
    return prefix, bytes(out)


def bech32_encode(prefix, data):
    """Returns the Bech32 text of `data`."""
    number, bits, values = 0, 0, []
    for byte in data:
        number, bits = (number << 8 | byte) & 0xFFFF, bits + 8
        while bits >= 5:
            bits -= 5
            values.append(number >> bits & 31)
    if bits:
        values.append(number << (5 - bits) & 31)
    head = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    check = _polymod(head + values + [0] * 6) ^ 1
    values += [check >> 5 * (5 - at) & 31 for at in range(6)]
    return prefix + "1" + "".join(CHARSET[value] for value in values)


def _polymod(values):
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for at, generator in enumerate([0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3]):
            check ^= generator if top >> at & 1 else 0
    return check


def identity(text):
    """Reads `AGE-SECRET-KEY-1…`."""
    prefix, key = bech32_decode(text)
    if prefix != "age-secret-key-" or len(key) != 32 or text != text.upper():
        raise ValueError("not an X25519 identity")
    return X25519PrivateKey.from_private_bytes(key)


def recipient(private):
    """Returns the `age1…` text of an identity."""
    return bech32_encode("age", _raw(private))


def _raw(private):
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def armor(binary):
    """Returns age's armor: 64 columns, LF, a final newline."""
    text = base64.b64encode(binary).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    head, tail = "-----BEGIN AGE ENCRYPTED FILE-----", "-----END AGE ENCRYPTED FILE-----"
    return "\n".join([head, *lines, tail]) + "\n"


def unarmor(text):
    """Decodes age's armor; only the spelling of `armor` is accepted."""
    try:
        binary = base64.b64decode("".join(text.splitlines()[1:-1]), validate=True)
    except ValueError as error:
        raise AgeError("not base64") from error
    if armor(binary) != text:
        raise AgeError("its armor is not in canonical form")
    return binary


def _base64(text):
    """Decodes base64 without padding; other spellings of the same bytes are refused."""
    try:
        binary = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise AgeError("not base64 in its header") from error
    if base64.b64encode(binary).decode().rstrip("=") != text:
        raise AgeError("base64 in another form")
    return binary


def _header(data):
    """Returns the stanzas, the header up to its MAC, the MAC, and the offset of the payload."""
    window = data[:MAX_HEADER]
    at = window.find(b"\n--- ")
    if not window.startswith(b"age-encryption.org/v1\n") or at < 0:
        raise AgeError("no age header")
    end = window.find(b"\n", at + 1)
    if end < 0:
        raise AgeError("its header has no end")
    mac = _base64(window[at + 5 : end].decode("ascii", "replace"))
    stanzas, lines = [], window[:at].decode("ascii", "replace").split("\n")[1:]
    while lines:
        arguments = lines.pop(0).split(" ")
        if arguments[0] != "->" or len(arguments) < 2:
            raise AgeError("no stanza")
        body = ""
        while lines:
            line = lines.pop(0)
            body += line
            if len(line) < 64:
                break
        stanzas.append((arguments[1:], _base64(body)))
    return stanzas, window[: at + 4], mac, end + 1


def _hkdf(secret, salt, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


def _unwrap(key, body):
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), body, None) if len(body) == 32 else None
    except InvalidTag:
        return None


def _of_identity(stanza, private):
    arguments, body = stanza
    if arguments[0] != "X25519" or len(arguments) != 2:
        return None
    share, own = _base64(arguments[1]), _raw(private)
    if len(share) != 32:
        raise AgeError("an X25519 stanza of another length")
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(share))
    except ValueError as error:
        raise AgeError("a share of low order") from error
    return _unwrap(_hkdf(shared, share + own, b"age-encryption.org/v1/X25519"), body)


def _of_passphrase(stanza, passphrase):
    arguments, body = stanza
    if arguments[0] != "scrypt" or len(arguments) != 3 or arguments[2] != "1":
        return None
    salt = b"age-encryption.org/v1/scrypt" + _base64(arguments[1])
    return _unwrap(hashlib.scrypt(passphrase.encode(), salt=salt, n=2, r=8, p=1, dklen=32), body)


def decrypt(data, limit, identities=(), passphrase=None):
    """Returns the plaintext of an age file, at most `limit` bytes."""
    stanzas, header, mac, payload = _header(data)
    if passphrase is not None:
        found = [_of_passphrase(stanza, passphrase) for stanza in stanzas if len(stanzas) == 1]
    else:
        found = [_of_identity(stanza, one) for stanza in stanzas for one in identities]
    keys = [key for key in found if key is not None]
    if not keys:
        raise WrongKey("it is not encrypted to this key")
    if not hmac.compare_digest(hmac.digest(_hkdf(keys[0], None, b"header"), header, "sha256"), mac):
        raise AgeError("its header was changed")
    nonce, body = data[payload : payload + 16], data[payload + 16 :]
    if len(nonce) < 16 or len(body) > limit + (limit // BLOCK + 1) * 16:
        raise AgeError("too short, or larger than allowed")
    cipher, out = ChaCha20Poly1305(_hkdf(keys[0], nonce, b"payload")), []
    count = max(1, -(-len(body) // (BLOCK + 16)))
    for at in range(count):
        block = body[at * (BLOCK + 16) : (at + 1) * (BLOCK + 16)]
        try:
            out.append(cipher.decrypt(at.to_bytes(11, "big") + bytes([at + 1 == count]), block, None))
        except (InvalidTag, ValueError) as error:
            raise AgeError("a block was changed") from error
    if count > 1 and not out[-1]:
        raise AgeError("an empty last block")
    return b"".join(out)

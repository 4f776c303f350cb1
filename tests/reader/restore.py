"""Restores a snapshot: which one is the latest, and its streams."""

import os

import age
from content import Malformed
from layout import is_hex, snapshot_name
from repository import MARKER, MAX_BODY, Repository
from signed import Invalid
from streams import Opened, open_body, stream_bytes


class Refused(Exception):
    """There is no snapshot that may be restored without more words."""


def _newer_damage(plan, seq):
    """True if something with a greater sequence has a signed key and does not count."""
    names = [key.rsplit("/", 1)[1] for key, _ in plan.bad_manifests]
    names += [fields["object"].rsplit("/", 1)[1] for fields in plan.late]
    return any(number > seq for number in _numbers(names) + _hidden(plan))


def _numbers(names):
    return [snapshot_name(name)[0] for name in names if snapshot_name(name)]


def _hidden(plan):
    """Returns the sequences of signed snapshots in epochs of which no copy is valid."""
    named = {part for key, _ in plan.bad_epochs for part in key.replace("-", "/").split("/") if is_hex(part, 32)}
    lost = (named | set(plan.gone)) - set(plan.epochs) - {plan.writer}
    return _numbers(entry.key.rsplit("/", 1)[1] for epoch in lost for entry in plan.signed_snapshots(epoch))


def latest(repository):
    """Returns the newest snapshot with its plan."""
    if repository.store.get("kbak.json", 4096) != MARKER:
        raise Refused("kbak.json is missing or damaged")
    found = []
    for plan in repository.plans:
        if plan.chain:
            found.append((plan, max(plan.snapshots(), key=lambda one: (one["seq"], one["end"], one["hash"]))))
        elif _hidden(plan) or plan.bad_manifests:
            raise Refused("no snapshot of a plan can be read")
    if len(found) != 1:
        raise Refused("no snapshot, or several plans: name one")
    plan, fields = found[0]
    if _newer_damage(plan, fields["seq"]):
        raise Refused("something newer is damaged: name a snapshot")
    return plan, fields


def numbered(repository, seq):
    """Returns the snapshot with a sequence; a late one counts for who names it."""
    of = [(plan, fields) for plan in repository.plans for fields in plan.snapshots() + plan.late]
    found = [one for one in of if one[1]["seq"] == seq]
    if len(found) != 1:
        raise Refused("no snapshot with this number, or several")
    return found[0]


def open_snapshot(store, pin, identities, sequence=None):
    """Returns the body of a snapshot and a reader of its epoch."""
    repository = Repository(store, pin)
    plan, fields = latest(repository) if sequence is None else numbered(repository, int(sequence))
    folder = plan.folder(fields["epoch"])
    keys = plan.open_wraps(fields["epoch"], identities, repository.records[plan.writer])
    body = open_body(store.get(f"{folder}bodies/{fields['body']}", MAX_BODY), fields, keys[0])
    reader = Opened(store, folder, *keys)
    for domain, name in body["domains"].items():
        reader.name(domain, name)
    return body, reader


def tar(store, pin, identities):
    """Returns the bytes of the first tar stream of the latest snapshot; None if that is not possible."""
    try:
        body, reader = open_snapshot(store, pin, identities)
        streams = [stream for item in body["items"] for stream in item["streams"] if stream["format"] == "tar"]
        return b"".join(stream_bytes(reader, streams[0]))
    except (Refused, Invalid, Malformed, age.AgeError):
        return None


def write(store, pin, identities, out, sequence=None):
    """Writes every stream of a snapshot into a folder."""
    body, reader = open_snapshot(store, pin, identities, sequence)
    for item in body["items"]:
        for stream in item["streams"]:
            ending = {"tar": ".tar", "jsonl": ".jsonl"}.get(stream["format"], "")
            name = "" if stream["format"] == "tar" else "/" + stream["name"]
            path = os.path.join(out, item["name"] + name + ending)
            if ".." in path.split("/"):
                raise Refused("a name that leads elsewhere")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.writelines(stream_bytes(reader, stream))
            print(path)
    return 0

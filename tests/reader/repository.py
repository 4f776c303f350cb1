"""What a reader believes of a repository: epochs, records and the chain of each plan (docs/format.md)."""

import datetime
import hashlib
import re

import age
import content
from layout import RECORDS, is_hex, snapshot_name
from signed import MAX_DOCUMENT, Invalid, open_document, parse_document, public_text

MARKER = b'{"kbak":1}'
MAX_RECORD = 64 << 10
MAX_BODY = 256 << 20
MAX_FOLDERS = 40
STATES = ("good", "anomalous", "accepted", "gap", "pending", "skipped")


def sha256(data):
    """Returns the SHA-256 of bytes in hex."""
    return hashlib.sha256(data).hexdigest()


def seconds(text):
    """Returns the Unix time of `YYYY-MM-DDTHH:MM:SSZ`; other spellings are refused."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text):
        raise ValueError("not a time in UTC and whole seconds")
    return int(datetime.datetime.fromisoformat(text).timestamp())


def require(condition, why):
    """Refuses a document that contradicts itself."""
    if not condition:
        raise Invalid("malformed", why)


def same(fields, wanted):
    """Refuses a document that names another place than its key."""
    for name, value in wanted.items():
        if fields.get(name) != value:
            raise Invalid("signature", f"it names {name} {fields.get(name)}, but its key names {value}")


def shape(check):
    """Makes an error in the shape of a document that of a document which is not signed in this form."""

    def wrapped(*args):
        try:
            return check(*args)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Invalid("signature", f"a field is missing or of another type: {error}") from error

    return wrapped


def hashes(value, digits=64):
    """Checks a list of hashes."""
    if not isinstance(value, list) or not all(is_hex(one, digits) for one in value):
        raise ValueError("not a list of hashes")
    return value


@shape
def open_epoch(data, pin, writer, plan, epoch):
    """Verifies an epoch.json."""
    fields, key = open_document(data, pin, writer, "kbak-epoch-v1")
    return {**check_epoch(fields, writer, plan, epoch), "key": public_text(key)}


@shape
def check_epoch(fields, writer, plan, epoch):
    """Checks the fields of an epoch.json."""
    if fields["format"] > 1:
        raise Invalid("newer", f"it is of format {fields['format']}")
    same(fields, {"writer": writer, "plan": plan, "epoch": epoch})
    begin, end = seconds(fields["created"]), seconds(fields["not_after"])
    longest, wraps = fields["max_run_seconds"], fields["wraps"]
    until = fields["retain_until"]
    hashes(fields["previous_epochs"], 32)
    sizes = fields["parameters"]
    require(1 <= len(wraps) <= 64, "it has no wraps, or too many")
    require(len({wrap["recipient"] for wrap in wraps}) == len(wraps), "it has two wraps for one owner")
    require(end > begin and longest > 0, "it ends before it begins")
    require(until is None or seconds(until) >= end + longest, "its lock ends too early")
    require(epoch not in fields["previous_epochs"], "it names itself")
    require(1 << 20 <= sizes["pack_bytes"] <= 64 << 20 and -7 <= sizes["level"] <= 22, "parameters")
    for one in (sizes["segment"], sizes["chunk"]):
        require(4096 <= one["min"] <= one["average"] <= one["max"] <= 8 << 20, "parameters")
    prefix, public = age.bech32_decode(fields["recipient"])
    require(prefix == "age" and len(public) == 32, "it names no recipient")
    return fields


@shape
def open_manifest(data, pin, writer, plan, epoch, name):
    """Verifies a manifest."""
    seq, digest = snapshot_name(name)
    parse_document(data)
    if sha256(data) != digest:
        raise Invalid("altered", "its name is not the hash of its content")
    fields, key = open_document(data, pin, writer, "kbak-manifest-v1")
    return {**check_manifest(fields, writer, plan, epoch, seq), "key": public_text(key), "hash": digest}


@shape
def check_manifest(fields, writer, plan, epoch, seq):
    """Checks the fields of a manifest, and adds its time in seconds."""
    same(fields, {"writer": writer, "plan": plan, "epoch": epoch, "seq": seq})
    previous = hashes(fields["previous"])
    begin, end = seconds(fields["started"]), seconds(fields["finished"])
    require(0 < seq < 10**12, "its sequence is out of range")
    require(len(previous) <= 256 and (not previous) == (seq == 1), "its sequence and its parents do not match")
    require(end >= begin, "it ended before it began")
    for entry in fields["index"] + fields["cache"] + fields["state"]:
        hashes([entry["domain"]], 16), hashes(entry["objects"])
    hashes([fields["body"]])
    for item in fields["items"]:
        if not is_hex(item["id"], 16) or item["state"] not in STATES:
            raise ValueError("an item")
        if "domain" in item or "needs" in item:
            hashes([item["domain"]], 16), hashes([item["needs"]])
    heals, trust = fields.get("heals", []), hashes(fields.get("trust", []))
    for heal in heals:
        hashes([heal["domain"]], 16), hashes([heal["bad"], *heal["by"]]), heal["whole"]
    require(all(len(heal["by"]) <= 512 for heal in heals[:513]) and len(heals) <= 512, "too many bad packs")
    require(len(trust) <= 256, "too many revocations")
    return {**fields, "end": end}


def needs_of(manifest):
    """Returns the needs objects of a manifest as (domain, hash), each once."""
    return sorted({(item["domain"], item["needs"]) for item in manifest["items"] if "needs" in item})


@shape
def open_record(data, pin, writer, kind, digest):
    """Verifies a record."""
    if sha256(data) != digest:
        raise Invalid("altered", "its name is not the hash of its content")
    fields, key = open_document(data, pin, writer, f"kbak-{kind}-v1")
    return {**check_record(fields, writer, kind), "signer": public_text(key)}


@shape
def check_record(fields, writer, kind):
    """Checks the fields of a record. Of reserved kinds only the common ones are known."""
    same(fields, {"writer": writer})
    hashes([fields["repository"]], 32), seconds(fields["at"])
    if kind == "trust":
        hashes(fields["last_good"]), fields["key"], fields["why"]
    if kind == "distrust":
        hashes(fields["packs"]), hashes(fields.get("hints_before", [])), fields["why"]
        hashes([fields["plan"], fields["domain"]], 16), hashes([fields["epoch"]], 32)
    if kind == "receipt":
        hashes([fields["plan"]], 16), hashes([fields["epoch"]], 32), fields["act"]
    return fields


class Records:
    """The signed records of a writer."""

    def __init__(self, store, pin, writer):
        self.valid, self.rejected = [], []
        prefix = f"{writer}/records/"
        for entry in store.list(prefix):
            kind, _, name = entry.key[len(prefix) :].partition("/")
            digest = kind in RECORDS and "/" not in name and pin.signed_hash(writer, f"kbak-{kind}-v1", entry.key)
            if not digest:
                continue
            try:
                data = store.get(entry.key, MAX_RECORD)
                if data is False:
                    raise Invalid("altered", "it is too long, or no file")
                fields = open_record(data, pin, writer, kind, digest)
                self.valid.append((kind, {**fields, "stored": entry.modified}, digest))
            except Invalid as error:
                self.rejected.append((entry.key, error))
        self.cut_offs = [fields for kind, fields, _ in self.valid if kind == "trust"] + pin.cut_offs

    def distrusted(self, plan, epoch, domain):
        """Returns the packs of a domain that records call bad."""
        place = {"plan": plan, "epoch": epoch, "domain": domain}
        of = [fields for kind, fields, _ in self.valid if kind == "distrust" and place.items() <= fields.items()]
        return {pack for fields in of for pack in fields["packs"]}

    def receipts(self, plan, epoch):
        """Returns the later wraps of an epoch that receipts name, the newest first."""
        place = {"plan": plan, "epoch": epoch}
        of = [fields for kind, fields, _ in self.valid if kind == "receipt" and place.items() <= fields.items()]
        of.sort(key=lambda fields: fields["stored"], reverse=True)
        return [fields["wrap"] for fields in of if fields.get("wrap")]


def unnamed(folders, known):
    """Returns those of the folders that no signed key names and that readers look into."""
    return [folder for folder in folders if folder not in known][:MAX_FOLDERS]


class Plan:
    """The epochs and the chain of one plan."""

    def __init__(self, store, pin, writer, plan, copies, records):
        self.store, self.pin, self.writer, self.plan = store, pin, writer, plan
        self.epochs, self.bad_epochs, self.missing_copies, self.gone = {}, [], [], []
        self.chain, self.bad_manifests, self.late = {}, [], []
        folders = unnamed(store.folders(f"{writer}/{plan}/"), copies)
        for epoch in sorted(set(copies) | {name for name in folders if is_hex(name, 32)}):
            self._epoch(epoch, copies.get(epoch, []))
        for epoch in sorted(self.epochs, key=lambda id: (self.epochs[id]["created"], id)):
            self._snapshots(epoch)
        self._cut_off(records)
        self._set_aside_late()

    def folder(self, epoch):
        """Returns the folder of an epoch, with its slash."""
        return f"{self.writer}/{self.plan}/{epoch}/"

    def _epoch(self, epoch, copies):
        first = self.folder(epoch) + "epoch.json"
        valid, rejected, absent = None, [], []
        for key in [first, *copies[:1]]:
            data = self.store.get(key, MAX_DOCUMENT)
            if data is None:
                absent.append(key)
                continue
            try:
                if data is False:
                    is_file = self.store.by_key[key].is_file
                    raise Invalid("signature" if is_file else "altered", "it is too long, or no file")
                found = open_epoch(data, self.pin, self.writer, self.plan, epoch)
                valid = valid or {**found, "sha256": sha256(data)}
            except Invalid as error:
                rejected.append((key, error))
        if valid:
            stored = self.store.by_key.get(copies[0] if copies else first)
            self.epochs[epoch] = {**valid, "stored": stored.modified}
            self.bad_epochs += rejected
            self.missing_copies += absent
            if not copies:
                self.missing_copies.append(f"{self.writer}/epochs/{self.plan}-{epoch}-{valid['sha256']}")
            return
        newer = any(error.fault == "newer" for _, error in rejected)
        if not copies and not newer and not self.signed_snapshots(epoch):
            return
        self.bad_epochs += rejected
        if not rejected:
            self.gone.append(epoch)

    def signed_snapshots(self, epoch):
        """Returns the objects of an epoch whose key is signed as that of a manifest."""
        entries = self.store.list(self.folder(epoch) + "snapshots/")
        signed = lambda entry: self.pin.signed_hash(self.writer, "kbak-manifest-v1", entry.key)  # noqa: E731
        return [entry for entry in entries if signed(entry)]

    def _snapshots(self, epoch):
        for entry in self.signed_snapshots(epoch):
            name = entry.key[len(self.folder(epoch)) + len("snapshots/") :]
            if not snapshot_name(name):
                continue
            try:
                data = self.store.get(entry.key, MAX_DOCUMENT)
                if data is False:
                    raise Invalid("altered", "it is too long, or no file")
                fields = open_manifest(data, self.pin, self.writer, self.plan, epoch, name)
                self.chain[fields["hash"]] = {**fields, "object": entry.key, "stored": entry.modified}
            except Invalid as error:
                self.bad_manifests.append((entry.key, error))

    def ancestors(self, of):
        """Returns these manifests and all their ancestors."""
        found, open_ = set(), list(of)
        while open_:
            digest = open_.pop()
            if digest in self.chain and digest not in found:
                found.add(digest)
                open_ += self.chain[digest]["previous"]
        return found

    def _cut_off(self, records):
        revoked = Invalid("signature", "an owner has revoked the key that signed it")
        for digest, fields in list(self.chain.items()):
            statements = [cut for cut in records.cut_offs if cut["key"] == fields["key"]]
            if any(digest not in self.ancestors(cut["last_good"]) for cut in statements):
                self.bad_manifests.append((fields["object"], revoked, digest))
        for _, _, digest in [bad for bad in self.bad_manifests if len(bad) == 3]:
            del self.chain[digest]
        self.bad_manifests = [bad[:2] for bad in self.bad_manifests]
        used = {fields["epoch"] for fields in self.chain.values()}
        for epoch, fields in list(self.epochs.items()):
            if any(cut["key"] == fields["key"] for cut in records.cut_offs) and epoch not in used:
                self.bad_epochs.append((self.folder(epoch) + "epoch.json", revoked))
                del self.epochs[epoch]

    def deadline(self, epoch):
        """Returns the time after which no manifest of an epoch counts; None if the store's times say nothing."""
        successors = [one for one in self.epochs.values() if epoch in one["previous_epochs"]]
        fields = self.epochs[epoch]
        until = min([seconds(fields["not_after"]), *(one["stored"] // 10**9 for one in successors)])
        until = (until + fields["max_run_seconds"]) * 10**9
        # Documents that were stored after that are those of a copied store.
        return until if fields["stored"] <= until else None

    def _set_aside_late(self):
        named = set()
        for fields in reversed(self.snapshots()):
            until = self.deadline(fields["epoch"])
            if until is not None and fields["stored"] > until and fields["hash"] not in named:
                self.late.append(fields)
                del self.chain[fields["hash"]]
            else:
                named.update(fields["previous"])

    def snapshots(self):
        """Returns the manifests, oldest first."""
        return sorted(self.chain.values(), key=lambda fields: (fields["seq"], fields["hash"]))

    def heads(self):
        """Returns the manifests that no other names as its parent."""
        named = {parent for fields in self.chain.values() for parent in fields["previous"]}
        return [fields for fields in self.snapshots() if fields["hash"] not in named]

    def open_wraps(self, epoch, identities, records):
        """Returns the identity and the secret of an epoch. Raises `age.WrongKey` if no wrap opens."""
        fields, later = self.epochs[epoch], f"{self.folder(epoch)}keys/"
        wraps = [("epoch.json", wrap["age"]) for wrap in fields["wraps"]]
        for text in [age.unarmor(text) for _, text in wraps] + self._later(later, records.receipts(self.plan, epoch)):
            try:
                plain = age.decrypt(text, 16 << 10, identities=identities).decode()
            except age.WrongKey:
                continue
            return read_wrap(plain, fields)
        raise age.WrongKey("no identity opens it")

    def _later(self, prefix, first):
        names = [entry.key for entry in self.store.list(prefix)]
        names = [f"{prefix}{one}.age" for one in first if f"{prefix}{one}.age" in names] + names
        wraps = []
        for key in list(dict.fromkeys(names))[:256]:
            data = self.store.get(key, 16 << 10)
            if data and sha256(data) + ".age" == key[len(prefix) :]:
                wraps.append(data)
        return wraps


def read_wrap(text, epoch):
    """Reads the text of a wrap, and proves that its keys are those of the epoch."""
    lines = text.split("\n")
    secrets = [line.removeprefix("# kbak-epoch-secret: ") for line in lines if line.startswith("# kbak-epoch-s")]
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(secrets) != 1 or len(keys) != 1 or not is_hex(secrets[0], 64):
        raise age.AgeError("its content is not the keys of an epoch")
    identity, secret = age.identity(keys[0]), bytes.fromhex(secrets[0])
    if age.recipient(identity) != epoch["recipient"] or content.commitment(secret).hex() != epoch["commitment"]:
        raise age.AgeError("the keys inside are those of another epoch")
    return identity, secret


class Repository:
    """All that a reader believes of a store."""

    def __init__(self, store, pin):
        self.store, self.pin = store, pin
        self.records, self.plans = {}, []
        for writer in pin.writers():
            copies = self._copies(writer)
            folders = unnamed(store.folders(f"{writer}/"), {*copies, "epochs", "probe", "records"})
            plans = sorted(set(copies) | {name for name in folders if is_hex(name, 16)})
            self.records[writer] = Records(store, pin, writer)
            for plan in plans:
                of = copies.get(plan, {})
                self.plans.append(Plan(store, pin, writer, plan, of, self.records[writer]))

    def _copies(self, writer):
        copies = {}
        for entry in self.store.list(f"{writer}/epochs/"):
            found = re.fullmatch("([0-9a-f]{16})-([0-9a-f]{32})-[^/-]*-[^/-]*", entry.key.split("/", 2)[2])
            if found and self.pin.signed_hash(writer, "kbak-epoch-v1", entry.key):
                copies.setdefault(found[1], {}).setdefault(found[2], []).append(entry.key)
        return copies

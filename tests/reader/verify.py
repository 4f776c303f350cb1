"""Checks a repository. Without a key: signatures, chains, presence, sizes, hashes. With one: the packs' content."""

import json

import age
import content
from content import Malformed
from layout import MAX_OBJECT, object_at, pack_key
from repository import MARKER, MAX_BODY, Repository, needs_of, sha256
from signed import Invalid
from streams import Opened, lost_packs, open_body

ROLES = {"wrap": "wrap", "body": "body", "pack": "pack", "needs": "needs"}
SAFE, USAGE, PARTIAL, DAMAGED = 0, 2, 3, 4


class Findings(dict):
    """Faults by key, at most one each: the first that is found."""

    def report(self, key, role, fault):
        """Adds a finding unless the object has one."""
        self.setdefault(
            key, {"role": role, "fault": fault, "healed": False, "distrusted": False, "obsolete": False}
        )


class Verifier:
    """One verification of a repository."""

    def __init__(self, store, pin, identities=(), read_all=False):
        self.store, self.pin, self.identities, self.read_all = store, pin, identities, read_all
        self.findings, self.closed, self.snapshots = Findings(), [], 0

    def run(self):
        """Returns the exit code that kbak would give."""
        self._marker()
        repository = Repository(self.store, self.pin)
        if not repository.plans:
            self.findings.report("", "plan", "missing")
        for records in repository.records.values():
            for key, error in records.rejected:
                self.findings.report(key, "record", error.fault)
        for plan in repository.plans:
            PlanCheck(self, plan, repository.records[plan.writer]).run()
            self.snapshots += len(plan.chain)
        return self._outcome()

    def _marker(self):
        data = self.store.get("kbak.json", 4096)
        if data is None:
            self.findings.report("kbak.json", "marker", "missing")
        elif data != MARKER:
            self.findings.report("kbak.json", "marker", "altered")

    def _outcome(self):
        found = self.findings.values()
        left = [one for one in found if not one["healed"] and not one["distrusted"] and not one["obsolete"]]
        if any(one["fault"] != "newer" for one in left):
            return DAMAGED
        if left:
            return USAGE
        distrusted = any(one["distrusted"] and not one["healed"] for one in found)
        return PARTIAL if distrusted or self.closed or not self.snapshots else SAFE


class PlanCheck:
    """The check of one plan."""

    def __init__(self, verifier, plan, records):
        self.findings, self.store, self.read_all = verifier.findings, verifier.store, verifier.read_all
        self.verifier, self.plan, self.records = verifier, plan, records
        self.chain = plan.snapshots()
        # By epoch: objects that manifests name, by key without a tag; packs with size by domain; bad packs.
        self.objects, self.packs, self.bad, self.users = {}, {}, {}, {}
        self.incomplete, self.hints = set(), {}

    def run(self):
        """Checks everything that is signed, then what it names."""
        self._epochs()
        self._chain()
        self._revocations()
        for epoch in self.plan.epochs:
            self._named(epoch)
            self._listing(epoch)
        opens = bool(self.verifier.identities)
        if opens:
            self._contents()
        self._distrusted(opens)
        self._healed()
        self._obsolete()

    def _epochs(self):
        plan = self.plan
        for key, error in plan.bad_epochs:
            self.findings.report(key, "epoch", error.fault)
        for key in plan.missing_copies:
            self.findings.report(key, "epoch", "missing")
        named = {one for fields in plan.epochs.values() for one in fields["previous_epochs"]}
        for epoch in sorted(named | set(plan.gone)):
            rejected = any(epoch in key for key, _ in plan.bad_epochs)
            if epoch not in plan.epochs and not rejected:
                self.findings.report(plan.folder(epoch) + "epoch.json", "epoch", "missing")

    def _chain(self):
        for key, error in self.plan.bad_manifests:
            self.findings.report(key, "snapshot", error.fault)
        for fields in self.plan.late:
            self.findings.report(fields["object"], "snapshot", "late")
        for fields in self.chain:
            if any(entry.startswith("verify:") for entry in fields["requires"]):
                self.findings.report(fields["object"], "snapshot", "newer")
        rejected = " ".join(key for key, _ in self.plan.bad_manifests)
        broken = set()
        for fields in self.chain:
            parents = [self.plan.chain.get(parent) for parent in fields["previous"]]
            absent = [one for one in fields["previous"] if one not in self.plan.chain]
            if any(one not in rejected for one in absent):
                broken.add(fields["seq"])
            if any(parent and parent["end"] > fields["end"] for parent in parents):
                broken.add(fields["seq"])
            if not absent and fields["seq"] != 1 + max((parent["seq"] for parent in parents), default=0):
                broken.add(fields["seq"])
        for fields in self.chain:
            if fields["seq"] in broken:
                self.findings.report(fields["object"], "snapshot", "chain")

    def _revocations(self):
        there = {digest for kind, _, digest in self.records.valid if kind == "trust"}
        named = {one for fields in self.chain for one in fields.get("trust", [])}
        for gone in named - there:
            self.findings.report(f"{self.plan.writer}/records/trust/{gone}", "record", "missing")

    def _with_copies(self):
        """Returns the keys of packs of which a manifest names whole copies, all of them good."""
        found = set()
        for fields in self.chain:
            epoch = fields["epoch"]
            for heal in [one for one in fields.get("heals", []) if one["whole"]]:
                packs = self.packs[epoch].get(heal["domain"], {})
                if all(pack in packs and pack not in self.bad[epoch] for pack in heal["by"]):
                    found.add(pack_key(self.plan.folder(epoch), heal["domain"], heal["bad"]))
        return found

    def _obsolete(self):
        newest = {fields["hash"] for fields in self.plan.heads()}
        for key, finding in self.findings.items():
            users = self.hints.get(key) or self.hints.get(key.rpartition("-")[0], set())
            if finding["role"] == "hint" and not users & newest:
                finding["obsolete"] = True

    def _healed(self):
        for key in self._with_copies() & set(self.findings):
            self.findings[key].update(healed=True, distrusted=False)

    def _named(self, epoch):
        folder = self.plan.folder(epoch)
        objects, packs = self.objects.setdefault(epoch, {}), self.packs.setdefault(epoch, {})
        for fields in [one for one in self.chain if one["epoch"] == epoch]:
            objects[f"{folder}bodies/{fields['body']}"] = ("body", fields["body_size"])
            for kind in ("index", "cache", "state"):
                for entry in fields[kind]:
                    for one in entry["objects"]:
                        key = f"{folder}d/{entry['domain']}/{kind}/{one}"
                        objects[key] = ("hint", None)
                        self.hints.setdefault(key, set()).add(fields["hash"])
            for domain, one in needs_of(fields):
                key = f"{folder}d/{domain}/needs/{one}"
                objects[key] = ("needs", None)
                listed = self._needs(key, one)
                if listed is None:
                    self.incomplete.add((fields["epoch"], domain))
                for pack, size in (listed or {}).items():
                    packs.setdefault(domain, {}).setdefault(pack, size)
                    self.users.setdefault(pack, set()).add(fields["hash"])

    def _needs(self, key, digest):
        data = self.store.get(key, content.MAX_NEEDS)
        if not data or sha256(data) != digest:
            self.findings.report(key, "needs", "missing" if data is None else "altered")
            return None
        try:
            return content.needs(data)
        except Malformed:
            self.findings.report(key, "needs", "malformed")
            return None

    def _listing(self, epoch):
        folder, seen = self.plan.folder(epoch), set()
        objects, packs = self.objects[epoch], self.packs[epoch]
        bad = self.bad.setdefault(epoch, set())
        for entry in self.store.list(folder):
            placed = object_at(folder, entry.key)
            if not placed or placed[0] in ("epoch", "snapshot"):
                continue
            kind, domain, digest = placed
            key = entry.key.rpartition("-")[0] if kind == "index" else entry.key
            seen.add(key)
            needed = kind == "pack" and digest in packs.get(domain, {})
            size = packs[domain][digest] if needed else objects.get(key, (None, None))[1]
            fault = self._entry(entry, digest, size, needed)
            if fault:
                # A pack may be one that an unreadable list names, and a wrap an owner's whom no receipt names.
                found = kind in ("pack", "needs", "body") and entry.is_file and entry.key not in self.findings
                orphan = found and not needed and key not in objects
                self.findings.report(entry.key, ROLES.get(kind, "hint"), fault)
                if orphan and (kind != "pack" or (epoch, domain) not in self.incomplete):
                    self.findings[entry.key]["obsolete"] = True
                bad |= {digest} if needed else set()
        for domain, of in packs.items():
            for pack in of:
                if pack_key(folder, domain, pack) not in seen:
                    self.findings.report(pack_key(folder, domain, pack), "pack", "missing")
                    bad.add(pack)
        for key, (role, _) in objects.items():
            if key not in seen:
                self.findings.report(key, role, "missing")

    def _entry(self, entry, digest, size, needed):
        if not entry.is_file or entry.size > MAX_OBJECT:
            return "altered"
        if size is not None and entry.size != size:
            return "size"
        # A needed pack is read once, when it is opened.
        if not self.read_all or (needed and self.verifier.identities) or entry.key in self.findings:
            return None
        return None if sha256(self.store.get(entry.key, MAX_OBJECT)) == digest else "altered"

    def _contents(self):
        opened = {}
        for epoch in self.plan.epochs:
            try:
                opened[epoch] = self.plan.open_wraps(epoch, self.verifier.identities, self.records)
            except age.WrongKey:
                self.verifier.closed.append(epoch)
            except age.AgeError:
                self.findings.report(self.plan.folder(epoch) + "epoch.json", "epoch", "unreadable")
        readers, lost = {}, set()
        for fields in self.chain:
            epoch = fields["epoch"]
            if epoch not in opened:
                continue
            folder = self.plan.folder(epoch)
            key = f"{folder}bodies/{fields['body']}"
            try:
                body = open_body(self.store.get(key, MAX_BODY), fields, opened[epoch][0])
            except (Invalid, age.AgeError):
                self.findings.report(key, "body", "unreadable")
                continue
            reader = readers.setdefault(epoch, Opened(self.store, folder, *opened[epoch]))
            self._packs(reader, epoch, {domain for domain, _ in needs_of(fields)}, body["domains"])
            # Nothing is known about the packs of a domain without their list, which has a finding of its own.
            for stream in [one for item in body["items"] for one in item["streams"]]:
                if (epoch, stream["domain"]) in self.incomplete:
                    continue
                try:
                    lost |= lost_packs(reader, stream, self.bad[epoch])
                except Malformed:
                    self.findings.report(key, "body", "malformed")
        for epoch, reader in readers.items():
            for domain, packs in self.packs[epoch].items():
                if (epoch, domain) in self.incomplete:
                    continue
                for pack in set(packs) & self.bad[epoch] - lost if domain in reader.keys else ():
                    key = pack_key(reader.folder, domain, pack)
                    if key in self.findings:
                        self.findings[key]["healed"] = True
            self._hints(reader, epoch)

    def _packs(self, reader, epoch, domains, names):
        for domain in sorted(domains):
            if domain in reader.keys or domain not in names:
                continue
            reader.name(domain, names[domain])
            for pack, size in self.packs[epoch].get(domain, {}).items():
                if pack in self.bad[epoch]:
                    continue
                try:
                    reader.prove(domain, pack, size)
                except (Malformed, age.AgeError):
                    self.findings.report(pack_key(reader.folder, domain, pack), "pack", "unreadable")
                    self.bad[epoch].add(pack)

    def _hints(self, reader, epoch):
        for key, (role, _) in self.objects[epoch].items():
            if role != "hint" or key in self.findings:
                continue
            domain, kind, digest = key.split("/")[-3:]
            if kind == "state":
                keys = content.DomainKeys(reader.secret, "coordinator/state")
            elif domain in reader.keys:
                keys = reader.keys[domain]
            else:
                continue
            stored = f"{key}-{keys.index_tag(bytes.fromhex(digest)).hex()}" if kind == "index" else key
            if stored in self.findings:
                continue
            fault = self._hint(reader, stored, kind, digest, keys, domain, epoch)
            if fault:
                self.findings.report(stored, "hint", fault)

    def _hint(self, reader, stored, kind, digest, keys, domain, epoch):
        data = self.store.get(stored, MAX_OBJECT)
        if not data or sha256(data) != digest:
            return "missing" if data is None else "altered"
        try:
            if kind == "index":
                packs, entries = content.index(data, keys)
                good = set(self.packs[epoch].get(domain, {})) - self.bad[epoch]
                for short, pack, offset, length, plain in entries:
                    name = packs[pack][0]
                    if name in good and (name, offset, length, plain, short) not in reader.short:
                        return "malformed"
                return None
            plain = age.decrypt(data, content.LIMITS[kind], passphrase=keys.passphrase(kind))
            if kind == "state":
                json.loads(plain)["items"].values()
                return None
            for _, group in content.cache_root(plain):
                part = self.store.get(f"{reader.folder}d/{domain}/cache/{group}", MAX_OBJECT)
                if not part or sha256(part) != group:
                    return "unreadable"
                content.cache_group(age.decrypt(part, content.LIMITS[kind], passphrase=keys.passphrase(kind)))
        except (Malformed, age.AgeError, ValueError, KeyError, TypeError, AttributeError):
            return "unreadable"
        return None

    def _distrusted(self, opens):
        newest, healed = {fields["hash"] for fields in self.plan.heads()}, self._with_copies()
        for epoch, domains in self.packs.items():
            for domain, packs in domains.items():
                folder = self.plan.folder(epoch)
                known = self.records.distrusted(self.plan.plan, epoch, domain) & set(packs)
                for pack in known:
                    key, needed = pack_key(folder, domain, pack), self.users[pack] & newest
                    unread = not opens and not self.read_all and pack not in self.bad[epoch]
                    if unread and key not in healed:
                        self.findings.report(key, "pack", "altered")
                    if key in self.findings and not needed and not opens:
                        self.findings[key]["distrusted"] = not self.findings[key]["healed"]

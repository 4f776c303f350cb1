"""Reads bodies and streams of opened epochs. Every chunk is proven by its id."""

import json

import age
import content
from content import Malformed
from layout import MAX_OBJECT, index_name, pack_key
from repository import MAX_BODY, STATES, hashes, require, same, sha256, shape


@shape
def open_body(data, manifest, identity):
    """Opens and checks the body of a manifest."""
    require(data and sha256(data) == manifest["body"] and len(data) == manifest["body_size"], "its hash")
    return check_body(json.loads(age.decrypt(data, MAX_BODY, identities=[identity])), manifest)


@shape
def check_body(fields, manifest):
    """Checks the fields of a body against its manifest."""
    same(fields, {name: manifest[name] for name in ("repository", "writer", "plan", "epoch", "seq")})
    require(fields["type"] == "body", "another document")
    public = {item["id"]: (item["state"], item.get("domain")) for item in manifest["items"]}
    require(len(fields["items"]) == len(manifest["items"]), "its items")
    for item in fields["items"]:
        state, domain = public.get(item["id"], (None, None))
        require(item["state"] == state and state in STATES, "its items")
        for stream in item["streams"]:
            require(stream["domain"] == domain and domain in fields["domains"], "a domain")
            _check_stream(stream)
    return fields


def _check_stream(stream):
    starts = [part["start"] for part in stream["parts"]]
    places = [part["start"] for part in stream.get("catalog", [])]
    require(starts == sorted(starts) and places == sorted(places) and starts[:1] in ([], [0]), "parts")
    require((not starts) == (stream["length"] == 0), "a length without parts")
    for part in stream["parts"] + stream.get("catalog", []):
        hashes([part["pack"], part["id"]])
        part["pack_size"], part["offset"], part["length"], part["plain_length"]
    hashes([stream["hash"]])


class Opened:
    """An epoch whose keys are known, and the chunks that were proven in it."""

    def __init__(self, store, folder, identity, secret):
        self.store, self.folder, self.identity, self.secret = store, folder, identity, secret
        self.keys, self.places, self.short, self.copies = {}, {}, set(), {}
        self.plain, self.indexes, self.tables = {}, {}, {}

    def name(self, domain, name):
        """Derives the keys of a domain."""
        self.keys[domain] = content.DomainKeys(self.secret, name)

    def open_pack(self, domain, pack, size, named=True):
        """Returns the plaintext of a pack whose size is right, and its hash too unless chunks alone prove it."""
        if (pack, named) not in self.plain:
            data = self.store.get(pack_key(self.folder, domain, pack), MAX_OBJECT)
            if not data or len(data) != size or (named and sha256(data) != pack):
                raise Malformed("its SHA-256 or size is another")
            if len(self.plain) > 8:
                self.plain.pop(next(iter(self.plain)))
            self.plain[pack, named] = age.decrypt(data, content.MAX_PACK, identities=[self.identity])
        return self.plain[pack, named]

    def chunk(self, domain, kind, pack, size, offset, length, plain_length, chunk, named=True):
        """Returns the bytes of a chunk, proven by its id."""
        frame = self.open_pack(domain, pack, size, named)[offset : offset + length]
        plain = content.decode_frame(frame, plain_length)
        if self.keys[domain].chunk_id(kind, plain) != chunk:
            raise Malformed("a chunk with another id")
        return plain

    def chunk_or_copy(self, domain, kind, pack, size, offset, length, plain, chunk):
        """Returns the bytes of a chunk, from a copy if its pack is bad: by the index, then by the packs' tables."""
        try:
            return self.chunk(domain, kind, pack, size, offset, length, plain, chunk)
        except (Malformed, age.AgeError) as error:
            for places in (self._index, self._tables):
                for copy in places(domain).get((chunk[:16], plain), ()):
                    try:
                        return self.chunk(domain, kind, *copy, plain, chunk, named=False)
                    except (Malformed, age.AgeError):
                        continue
            raise error

    def _tables(self, domain):
        """Returns the places of every chunk that the packs of the domain name in their own tables."""
        if domain not in self.tables:
            places = {}
            for entry in self.store.list(f"{self.folder}d/{domain}/packs/"):
                pack = entry.key.rpartition("/")[2]
                try:
                    rows = content.pack_table(self.open_pack(domain, pack, entry.size, named=False))
                except (Malformed, age.AgeError):
                    continue
                for chunk, offset, length, plain, _ in rows:
                    places.setdefault((chunk[:16], plain), []).append((pack, entry.size, offset, length))
            self.tables[domain] = places
        return self.tables[domain]

    def has_copy(self, domain, kind, *place_and_id):
        """True if a chunk whose pack is bad has a copy elsewhere."""
        if place_and_id[-1] in self.copies:
            return True
        try:
            self.chunk_or_copy(domain, kind, *place_and_id)
        except (Malformed, age.AgeError):
            return False
        return True

    def _index(self, domain):
        """Returns the places of every chunk that an index object of the domain names."""
        if domain not in self.indexes:
            places, keys, prefix = {}, self.keys[domain], f"{self.folder}d/{domain}/index/"
            for entry in self.store.list(prefix):
                name = index_name(entry.key[len(prefix) :])
                if not name or keys.index_tag(bytes.fromhex(name[0])).hex() != name[1]:
                    continue
                data = self.store.get(entry.key, MAX_OBJECT)
                if not data or sha256(data) != name[0]:
                    continue
                try:
                    packs, entries = content.index(data, keys)
                except (Malformed, age.AgeError):
                    continue
                for short, pack, offset, length, plain in entries:
                    places.setdefault((short, plain), []).append((*packs[pack], offset, length))
            self.indexes[domain] = places
        return self.indexes[domain]

    def prove(self, domain, pack, size):
        """Opens every chunk of a pack and notes its place."""
        rows = content.pack_table(self.open_pack(domain, pack, size))
        for chunk, offset, length, plain, kind in rows:
            self.chunk(domain, kind, pack, size, offset, length, plain, chunk)
        for chunk, offset, length, plain, kind in rows:
            self.places[pack, offset, length, plain] = (chunk, kind)
            self.short.add((pack, offset, length, plain, chunk[:16]))
            self.copies[chunk] = (domain, kind, pack, size, offset, length, plain, chunk)

    def part(self, domain, kind, part, bad=()):
        """Returns the text of a list part or a catalog chunk, from a copy if its pack is bad."""
        chunk = bytes.fromhex(part["id"])
        if part["pack"] in bad and chunk in self.copies:
            return self.chunk(*self.copies[chunk])
        find = self.chunk_or_copy if part["pack"] in bad else self.chunk
        return find(domain, kind, *place_of(part), chunk)


def place_of(part):
    """Returns the place of a list part or a catalog chunk."""
    return part["pack"], part["pack_size"], part["offset"], part["length"], part["plain_length"]


def lost_packs(reader, stream, bad):
    """Checks the lists and the catalog of a stream. Returns the bad packs whose chunks it misses."""
    domain, parts, catalog = stream["domain"], stream["parts"], stream.get("catalog", [])

    def absent(kind, part):
        place = (*place_of(part), bytes.fromhex(part["id"]))
        return part["pack"] in bad and not reader.has_copy(domain, kind, *place)

    lost = {part["pack"] for kind, all_of in ((1, parts), (2, catalog)) for part in all_of if absent(kind, part)}
    slices = []
    for part in parts:
        if absent(1, part):
            continue
        for one in content.list_part(reader.part(domain, 1, part, bad)):
            slices.append(one)
            pack, size, offset, length, plain, chunk, _, _ = one
            if pack in bad:
                found = pack not in lost and reader.has_copy(domain, 0, pack, size, offset, length, plain, chunk)
                lost |= set() if found else {pack}
            elif reader.places.get((pack, offset, length, plain)) != (chunk, 0):
                raise Malformed("a chunk that its pack does not hold")
    if lost:
        return lost
    if content.stream_hash(slices) != stream["hash"] or sum(one[7] for one in slices) != stream["length"]:
        raise Malformed("its list is another one")
    for part in catalog:
        for line in content.catalog(reader.part(domain, 2, part, bad)):
            if part["start"] + line["at"] >= stream["length"]:
                raise Malformed("a place outside of the stream")
    return set()


def stream_bytes(reader, stream):
    """Yields the bytes of a stream."""
    domain, left = stream["domain"], stream["length"]
    for part in stream["parts"]:
        text = reader.chunk_or_copy(domain, 1, *place_of(part), bytes.fromhex(part["id"]))
        for pack, size, offset, length, plain, chunk, skip, take in content.list_part(text):
            data = reader.chunk_or_copy(domain, 0, pack, size, offset, length, plain, chunk)
            left -= take
            yield data[skip : skip + take]
    if left:
        raise Malformed("its list does not hold as many bytes as it has")

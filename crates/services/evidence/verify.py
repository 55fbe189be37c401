#!/usr/bin/env python3
"""Verifies an evidence bundle, without writ and without its code.

    verify.py BUNDLE --trust TRUST.json [--held CHECKPOINT] [--json]

The second opinion: an independent implementation of the same checks, in the same
order and with the same codes as `writ verify`. It needs Python 3.9 and one
package, `cryptography`, for Ed25519. It reads the two or three files named and
nothing else: no network, no configuration, no clock.

Exit code: 0 valid, 7 not valid, 2 used wrongly.

Specifications: POSIX ustar, DSSE v1, in-toto Statement v1, c2sp.org/signed-note,
c2sp.org/tlog-checkpoint, RFC 6962 and 9162 section 2.1, RFC 8785 narrowed to
ASCII keys and integers below 2^53.
"""

import argparse
import base64
import binascii
import hashlib
import json
import re
import sys
import unicodedata

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

BUNDLE_BYTES_MAX = 1 << 30
FILES_MAX = 256
NAME_BYTES_MAX = 100
TRUST_BYTES_MAX = 4 << 20
ROWS_MAX = 10_000
NOTE_BYTES_MAX = 16 * 1024
SIGNATURES_MAX = 16
LEAF_BYTES_MAX = 4096
DEPTH_MAX = 16
INTEGER_LIMIT = 1 << 53
CLAIMS_MAX = 100_000
HISTORY_MAX = 256
CONSISTENCY_MAX = 128
FIELDS_MAX = 64
SKEW_MS = 5 * 60 * 1000

REQUIRED = [
    "checkpoint", "disclosures.json", "facts.jsonl", "history.json",
    "manifest.dsse.json", "proof.json", "readme.txt", "summary.json",
]
MANIFEST = "manifest.dsse.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://writ.example/evidence/v1"
WHOLE_LOG = "log"
NOT_PROVEN = ["before_the_log", "selection", "summary", "truth_of_content", "unseen_history"]
EFFECTS = ["ALLOW", "ROUTE", "THROTTLE", "HITL", "STEP_UP", "DENY"]

ID = re.compile(r"[a-z]{2,8}_[a-z0-9][a-z0-9.-]*\Z")
HEX32 = re.compile(r"[0-9a-f]{64}\Z")
POLICY_FILE = re.compile(r"policy/([0-9a-f]{64})\.bundle\Z")
NAME = re.compile(rb"[a-z0-9._-]+(/[a-z0-9._-]+)*\Z")


class Invalid(Exception):
    """The first thing that does not hold."""

    def __init__(self, code, detail=""):
        super().__init__(code, detail)
        self.code = "evidence." + code
        self.detail = str(detail)


# Small things that must be exact.

def sha256(data):
    return hashlib.sha256(data).digest()


def unbase64(text):
    """Bytes of standard, padded, canonical base64; None of anything else."""
    if not isinstance(text, str):
        return None
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode("ascii") == text else None


def is_id(text):
    return isinstance(text, str) and len(text) <= 80 and ID.match(text) is not None


def is_int(value, least=None):
    return type(value) is int and (least is None or value >= least)


def has_exactly(value, *members):
    return isinstance(value, dict) and set(value) == set(members)


# Canonical JSON: the one spelling of a value.

class NotCanonical(Exception):
    pass


def _refuse(_):
    raise NotCanonical


def _pairs(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotCanonical
    return members


def _integer(text):
    if len(text) > 17:
        raise NotCanonical
    number = int(text)
    if abs(number) >= INTEGER_LIMIT:
        raise NotCanonical
    return number


def _in_profile(value, depth):
    if depth > DEPTH_MAX:
        raise NotCanonical
    if isinstance(value, dict):
        for key, item in value.items():
            if not key or not all(" " <= c <= "~" and c not in '"\\' for c in key):
                raise NotCanonical
            _in_profile(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _in_profile(item, depth + 1)


def _depth_ok(text):
    """Brackets nested at most a little deeper than the profile allows, so that no parser is asked to recurse far."""
    depth, quoted, escaped = 0, False, False
    for c in text:
        if quoted:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == '"':
                quoted = False
        elif c == '"':
            quoted = True
        elif c in "[{":
            depth += 1
            if depth > DEPTH_MAX + 2:
                return False
        elif c in "]}":
            depth -= 1
    return True


def parse(data):
    """A value from JSON whose numbers are integers of the profile and whose keys are unique, in any spelling."""
    try:
        text = data.decode("utf-8")
        if not _depth_ok(text):
            raise NotCanonical
        return json.loads(
            text, object_pairs_hook=_pairs, parse_int=_integer, parse_float=_refuse, parse_constant=_refuse)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise NotCanonical from error


def dump(value):
    _in_profile(value, 0)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotCanonical from error


def canonical(data):
    """The value that `data` is the one spelling of."""
    value = parse(data)
    if dump(value) != data:
        raise NotCanonical
    return value


# Merkle trees.

def leaf_hash(leaf):
    return sha256(b"\x00" + leaf)


def node_hash(left, right):
    return sha256(b"\x01" + left + right)


def split(n):
    """The largest power of two below n."""
    return 1 << ((n - 1).bit_length() - 1)


def tree_root(hashes):
    """Root over leaf hashes, level by level: an odd node at the end is carried up."""
    if not hashes:
        return sha256(b"")
    level = hashes
    while len(level) > 1:
        level = [
            node_hash(level[n], level[n + 1]) if n + 1 < len(level) else level[n]
            for n in range(0, len(level), 2)
        ]
    return level[0]


def multi_root(size, leaves, proof):
    """Root that leaves (index, hash) and the roots of the subtrees without any of them lead to; None if they do not."""
    if size == 0:
        return sha256(b"") if not leaves and not proof else None
    rest = iter(proof)

    def walk(start, end, low, high):
        if low == high:
            return next(rest)
        if high - low == end - start:
            return tree_root([digest for _, digest in leaves[low:high]])
        middle = start + split(end - start)
        cut = low
        bottom, top = low, high
        while bottom < top:
            cut = (bottom + top) // 2
            if leaves[cut][0] < middle:
                bottom = cut + 1
            else:
                top = cut
        left = walk(start, middle, low, bottom)
        return node_hash(left, walk(middle, end, bottom, high))

    try:
        root = walk(0, size, 0, len(leaves))
    except StopIteration:
        return None
    return root if next(rest, None) is None else None


def consistent(old, old_root, new, new_root, proof):
    """RFC 9162 section 2.1.4.2, for old < new."""
    if old == 0:
        return not proof and old_root == sha256(b"")
    hashes = list(proof)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    first = second = hashes[0]
    for digest in hashes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first = node_hash(digest, first)
            second = node_hash(digest, second)
            if not node & 1:
                while node and not node & 1:
                    node >>= 1
                    last >>= 1
        else:
            second = node_hash(second, digest)
        node >>= 1
        last >>= 1
    return last == 0 and first == old_root and second == new_root


# Signed notes.

def name_ok(name):
    return bool(name) and all(
        c != "+" and not c.isspace() and unicodedata.category(c) != "Cc" for c in name)


def ed25519(key, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def vkey(text):
    """(name, hash, key) of a C2SP verifier key for Ed25519."""
    parts = text.split("+", 2)
    if len(parts) != 3 or not name_ok(parts[0]):
        return None
    data = unbase64(parts[2])
    if data is None or len(data) != 33 or data[0] != 1:
        return None
    digest = sha256(parts[0].encode() + b"\n" + data)[:4]
    return (parts[0], digest, data[1:]) if digest.hex() == parts[1] else None


def note_parts(note):
    """(signed text, [(name, key hash, signature)]) of a signed note; None if it is none."""
    if len(note.encode()) > NOTE_BYTES_MAX:
        return None
    if any(c != "\n" and unicodedata.category(c) == "Cc" for c in note):
        return None
    at = note.rfind("\n\n")
    if at < 0 or not note[at + 2:].endswith("\n"):
        return None
    lines = note[at + 2:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        return None
    signatures = []
    for line in lines:
        if not line.startswith("\u2014 "):
            return None
        name, space, encoded = line[2:].partition(" ")
        data = unbase64(encoded)
        if not space or not name_ok(name) or data is None or len(data) < 5:
            return None
        signatures.append((name, data[:4], data[4:]))
    return note[:at + 1], signatures


def checkpoint_parts(text):
    """(origin, size, root) of a checkpoint's text; None if it is none."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not name_ok(lines[0]):
        return None
    if not re.match(r"(0|[1-9][0-9]*)\Z", lines[1], re.ASCII) or int(lines[1]) >= 1 << 64:
        return None
    root = unbase64(lines[2])
    return (lines[0], int(lines[1]), root) if root is not None and len(root) == 32 else None


def holds(row, at_ms):
    return row["from_ms"] <= at_ms and (row["until_ms"] is None or at_ms < row["until_ms"])


def note_open(trust, data, at_ms=None):
    """The checkpoint in a note that a trusted key of its log signed; with a time, a key that held then."""
    try:
        note = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid("checkpoint_malformed", "not UTF-8") from None
    origin = note.split("\n", 1)[0]
    failure = Invalid("log_unknown", origin)
    for row in trust["logs"]:
        if row["origin"] != origin:
            continue
        name, key_hash, key = vkey(row["key"])
        parts = note_parts(note)
        if parts is None:
            raise Invalid("checkpoint_malformed", "not a signed note")
        text, signatures = parts
        mine = [signature for n, h, signature in signatures if n == name and h == key_hash]
        if not mine:
            if failure.code == "evidence.log_unknown":
                failure = Invalid("checkpoint_key_unknown", origin)
            continue
        if len(mine[0]) != 64 or not ed25519(key, mine[0], text.encode()):
            raise Invalid("checkpoint_signature", origin)
        found = checkpoint_parts(text)
        if found is None or found[0] != name:
            raise Invalid("checkpoint_malformed", "not a checkpoint")
        if at_ms is None or holds(row, at_ms):
            return found
        failure = Invalid("log_key_expired", origin)
    raise failure


# The trust file.

def trust_open(data):
    def need(condition, detail):
        if not condition:
            raise Invalid("trust_malformed", detail)

    need(len(data) <= TRUST_BYTES_MAX, "too large")
    try:
        trust = parse(data)
        dump(trust)
    except NotCanonical:
        raise Invalid("trust_malformed", "not JSON of the profile") from None
    need(has_exactly(trust, "version", "installation", "logs", "evidence_keys", "witnesses"), "members")
    need(is_int(trust["version"]) and trust["version"] == 1, "version")
    need(isinstance(trust["installation"], str), "installation")
    for rows in (trust["logs"], trust["evidence_keys"]):
        need(isinstance(rows, list) and len(rows) <= ROWS_MAX, "rows")
    for log in trust["logs"]:
        need(has_exactly(log, "origin", "key", "from_ms", "until_ms", "epoch"), "log")
        need(isinstance(log["origin"], str) and isinstance(log["key"], str), "log")
        need(is_int(log["epoch"], 0), "epoch")
        key = vkey(log["key"])
        home, slash, epoch = log["origin"].rpartition("/")
        need(key is not None and key[0] == log["origin"], "a log's key")
        need(slash and epoch == str(log["epoch"]), "a log's epoch")
        need(home.split("/")[0] == trust["installation"], "a log's installation")
    ids = set()
    for row in trust["evidence_keys"]:
        need(has_exactly(row, "id", "key", "from_ms", "until_ms"), "evidence key")
        key = unbase64(row["key"])
        need(key is not None and len(key) == 32, "evidence key")
        need(row["id"] == "evk_" + sha256(key).hex()[:16] and row["id"] not in ids, "evidence key id")
        ids.add(row["id"])
    for row in trust["logs"] + trust["evidence_keys"]:
        need(is_int(row["from_ms"]), "from_ms")
        need(row["until_ms"] is None or is_int(row["until_ms"], row["from_ms"] + 1), "until_ms")
    witnesses = trust["witnesses"]
    need(has_exactly(witnesses, "quorum", "keys"), "witnesses")
    need(is_int(witnesses["quorum"], 0) and witnesses["quorum"] < 1 << 32, "quorum")
    keys = witnesses["keys"]
    need(isinstance(keys, list) and len(keys) <= ROWS_MAX and all(isinstance(k, str) for k in keys), "witnesses")
    return trust


# The archive.

def header(name, size):
    block = bytearray(512)
    block[:len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = b"0000000\0"
    block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b"        "
    block[156:157] = b"0"
    block[257:265] = b"ustar\x0000"
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


def archive(data):
    """The files of an archive in its one spelling."""
    if len(data) > BUNDLE_BYTES_MAX:
        raise Invalid("archive_too_large")
    files, at, last = {}, 0, b""
    while True:
        block = data[at:at + 512]
        if len(block) < 512:
            raise Invalid("archive_malformed", at)
        if not any(block):
            if len(data) - at == 1024 and not any(data[at:]):
                return files
            raise Invalid("archive_malformed", at)
        if block[257:265] != b"ustar\x0000":
            raise Invalid("archive_malformed", at)
        if block[156:157] != b"0":
            raise Invalid("archive_entry", at)
        name = block[:NAME_BYTES_MAX].split(b"\0", 1)[0]
        parts = name.split(b"/")
        if not NAME.match(name) or b"." in parts or b".." in parts or name <= last:
            raise Invalid("archive_name", at)
        field = block[124:136]
        if not re.match(rb"[0-7]{11}\0\Z", field) or header(name, int(field[:11], 8)) != block:
            raise Invalid("archive_malformed", at)
        if len(files) == FILES_MAX:
            raise Invalid("archive_too_large")
        size = int(field[:11], 8)
        start, end = at + 512, at + 512 + size
        at = start + (size + 511) // 512 * 512
        if at > len(data) or any(data[end:at]):
            raise Invalid("archive_malformed", start - 512)
        files[name.decode("ascii")] = data[start:end]
        last = name


# The checks.

def envelope(files, trust):
    """The predicate of a manifest that a trusted key signed over exactly these files."""
    def need(condition, detail):
        if not condition:
            raise Invalid("manifest_malformed", detail)

    try:
        outer = canonical(files[MANIFEST])
    except NotCanonical:
        raise Invalid("manifest_malformed", "envelope not canonical") from None
    need(has_exactly(outer, "payload", "payloadType", "signatures"), "envelope")
    need(isinstance(outer["payload"], str) and isinstance(outer["payloadType"], str), "envelope")
    need(isinstance(outer["signatures"], list), "signatures")
    for row in outer["signatures"]:
        need(has_exactly(row, "keyid", "sig"), "signature")
        need(isinstance(row["keyid"], str) and isinstance(row["sig"], str), "signature")
    if outer["payloadType"] != PAYLOAD_TYPE:
        raise Invalid("manifest_type", "payload")
    need(len(outer["signatures"]) == 1, "not one signature")
    payload = unbase64(outer["payload"])
    need(payload is not None, "payload")
    signature = unbase64(outer["signatures"][0]["sig"])
    need(signature is not None and len(signature) == 64, "signature")
    keyid = outer["signatures"][0]["keyid"]
    keys = [row for row in trust["evidence_keys"] if row["id"] == keyid]
    if not keys:
        raise Invalid("evidence_key_unknown", keyid)
    signed = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    if not ed25519(unbase64(keys[0]["key"]), signature, signed):
        raise Invalid("manifest_signature", keyid)
    try:
        statement = canonical(payload)
    except NotCanonical:
        raise Invalid("manifest_malformed", "statement not canonical") from None
    need(has_exactly(statement, "_type", "predicate", "predicateType", "subject"), "statement")
    need(isinstance(statement["_type"], str) and isinstance(statement["predicateType"], str), "statement")
    predicate, subjects = statement["predicate"], statement["subject"]
    need(has_exactly(predicate, "created_at_ms", "not_proven", "origin", "ranges", "size", "streams", "subject",
                     "tenant"), "predicate")
    need(is_int(predicate["created_at_ms"]) and is_int(predicate["size"], 0), "predicate")
    need(all(isinstance(predicate[name], str) for name in ("origin", "subject", "tenant")), "predicate")
    need(isinstance(predicate["not_proven"], list), "not_proven")
    need(all(isinstance(claim, str) for claim in predicate["not_proven"]), "not_proven")
    need(is_ranges(predicate["ranges"]), "ranges")
    need(isinstance(predicate["streams"], list), "streams")
    for claim in predicate["streams"]:
        need(has_exactly(claim, "last", "stream"), "streams")
        need(is_int(claim["last"], 0) and isinstance(claim["stream"], str), "streams")
    need(isinstance(subjects, list), "subject")
    for row in subjects:
        need(has_exactly(row, "digest", "name") and isinstance(row["name"], str), "subject")
        need(has_exactly(row["digest"], "sha256") and isinstance(row["digest"]["sha256"], str), "subject")
    if statement["_type"] != STATEMENT_TYPE or statement["predicateType"] != PREDICATE_TYPE:
        raise Invalid("manifest_type", "statement")

    need(len(predicate["ranges"]) <= CLAIMS_MAX and len(predicate["streams"]) <= CLAIMS_MAX, "too many claims")
    end = -1
    for start, stop in predicate["ranges"]:
        need(end < start < stop <= predicate["size"], "ranges")
        end = stop
    names = [claim["stream"] for claim in predicate["streams"]]
    need(all(a.encode() < b.encode() for a, b in zip(names, names[1:])), "streams unsorted")
    need(all(claim["last"] > 0 and is_id(claim["stream"]) for claim in predicate["streams"]), "streams")
    whole = [[0, predicate["size"]]] if predicate["size"] else []
    if predicate["subject"] not in names and not (
            predicate["subject"] == WHOLE_LOG and predicate["ranges"] == whole):
        raise Invalid("overclaim", predicate["subject"])
    if not holds(keys[0], predicate["created_at_ms"]):
        raise Invalid("evidence_key_expired", keyid)

    listed = {}
    for row in subjects:
        need(HEX32.match(row["digest"]["sha256"]), "digest")
        need(not listed or list(listed)[-1].encode() < row["name"].encode(), "files unsorted")
        need(row["name"] != MANIFEST, "lists itself")
        listed[row["name"]] = row["digest"]["sha256"]
    for name, content in files.items():
        if name == MANIFEST:
            continue
        if name not in listed:
            raise Invalid("file_unlisted", name)
        if sha256(content).hex() != listed[name]:
            raise Invalid("file_digest", name)
    for name in listed:
        if name not in files:
            raise Invalid("file_missing", name)
    return predicate


def is_ranges(value):
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and is_int(pair[0], 0) and is_int(pair[1], 0) for pair in value)


def hashes(value):
    """A list of 32-byte hashes in base64; None of anything else."""
    if not isinstance(value, list):
        return None
    out = [unbase64(text) for text in value]
    return out if all(digest is not None and len(digest) == 32 for digest in out) else None


def history(data, trust, newest):
    try:
        rows = canonical(data)
    except NotCanonical:
        raise Invalid("history_malformed", "not canonical") from None
    if not isinstance(rows, list):
        raise Invalid("history_malformed", "not a list")
    for row in rows:
        if not has_exactly(row, "checkpoint", "proof") or not isinstance(row["checkpoint"], str):
            raise Invalid("history_malformed", "members")
        if not isinstance(row["proof"], list) or not all(isinstance(text, str) for text in row["proof"]):
            raise Invalid("history_malformed", "proof")
    if len(rows) > HISTORY_MAX:
        raise Invalid("history_malformed", "too many")
    found = []
    for row in rows:
        checkpoint = note_open(trust, row["checkpoint"].encode())
        proof = hashes(row["proof"])
        if proof is None or len(proof) > CONSISTENCY_MAX:
            raise Invalid("history_malformed", "proof")
        if checkpoint[0] != newest[0]:
            raise Invalid("history_malformed", "another log")
        found.append((checkpoint, proof))
    for n, (old, proof) in enumerate(found):
        new = found[n + 1][0] if n + 1 < len(found) else newest
        if old[1] >= new[1] or not consistent(old[1], old[2], new[1], new[2], proof):
            raise Invalid("history_inconsistent", "size %d against %d" % (old[1], new[1]))
    return [checkpoint for checkpoint, _ in found]


LEAF = ("act", "actor", "args_commitment", "assurance", "at_ms", "causes", "decision", "id", "kind",
        "on_behalf_of", "origin", "outcome", "policy", "resource", "stream", "stream_n", "trace", "v")


def leaf(line):
    """A leaf in the frozen form; None of anything else."""
    if len(line) > LEAF_BYTES_MAX:
        return None
    try:
        fact = canonical(line)
    except NotCanonical:
        return None
    if not has_exactly(fact, *LEAF):
        return None
    decision = fact["decision"]
    good = (
        all(isinstance(fact[name], str) for name in ("act", "kind", "origin", "resource", "trace"))
        and all(fact[name] is None or isinstance(fact[name], str) for name in ("assurance", "policy"))
        and all(is_id(fact[name]) for name in ("actor", "id", "stream"))
        and all(isinstance(fact[name], list) and all(is_id(one) for one in fact[name])
                for name in ("causes", "on_behalf_of"))
        and (decision is None or (has_exactly(decision, "effect", "id") and decision["effect"] in EFFECTS
                                  and is_id(decision["id"])))
        and (fact["args_commitment"] is None or (isinstance(fact["args_commitment"], str)
                                                 and HEX32.match(fact["args_commitment"])))
        and isinstance(fact["outcome"], dict)
        and is_int(fact["at_ms"]) and is_int(fact["stream_n"], 1) and is_int(fact["v"], 1) and fact["v"] == 1
    )
    return fact if good else None


def epoch_parts(origin):
    """An origin without its epoch, and that; None if it does not end in a number of 64 bits in its one spelling."""
    home, slash, text = origin.rpartition("/")
    if not slash or not re.fullmatch("0|[1-9][0-9]{0,19}", text) or int(text) >= 1 << 64:
        return None
    return home, int(text)


def earlier_epoch(origin, newest):
    """Whether `origin` is the same log as `newest`, in an earlier epoch."""
    one, other = epoch_parts(origin), epoch_parts(newest)
    return one is not None and other is not None and one[0] == other[0] and one[1] < other[1]


class Facts:
    """The leaves, and what later checks need of them."""

    def __init__(self, data, predicate):
        if data and not data.endswith(b"\n"):
            raise Invalid("fact_malformed", "the last line has no end")
        lines = data.split(b"\n")[:-1]
        claimed = sum(stop - start for start, stop in predicate["ranges"])
        if claimed != len(lines):
            raise Invalid("range_gap", "%d facts for ranges of %d" % (len(lines), claimed))
        complete = {claim["stream"] for claim in predicate["streams"]}
        whole = predicate["subject"] == WHOLE_LOG
        self.leaves, self.commitments, self.streams, self.policies = [], {}, {}, set()
        newest, last_origin = None, ""
        indices = (index for start, stop in predicate["ranges"] for index in range(start, stop))
        for index, line in zip(indices, lines):
            where = "fact at index %d" % index
            fact = leaf(line)
            if fact is None:
                raise Invalid("fact_malformed", where)
            if fact["origin"] != last_origin:
                # Leaves of earlier epochs come first, and none comes back.
                if earlier_epoch(fact["origin"], last_origin) or \
                        (fact["origin"] != predicate["origin"] and not earlier_epoch(fact["origin"], predicate["origin"])):
                    raise Invalid("fact_origin", where)
                last_origin = fact["origin"]
            at_ms = fact["at_ms"]
            if (newest is not None and at_ms < newest - SKEW_MS) or at_ms > predicate["created_at_ms"] + SKEW_MS:
                raise Invalid("fact_time", where)
            newest = at_ms if newest is None else max(newest, at_ms)
            if fact["id"] in self.commitments:
                raise Invalid("fact_twice", where)
            self.commitments[fact["id"]] = fact["args_commitment"]
            before, number = self.streams.get(fact["stream"], 0), fact["stream_n"]
            gapless = whole or fact["stream"] in complete
            if (number != before + 1) if gapless else (number <= before):
                raise Invalid("stream_gap", "%d after %d in %s, %s" % (number, before, fact["stream"], where))
            self.streams[fact["stream"]] = number
            if fact["policy"] is not None:
                self.policies.update(part for part in fact["policy"].split("+") if HEX32.match(part))
            self.leaves.append((index, leaf_hash(line)))


def held_check(held, trust, newest, earlier, facts):
    if held is None:
        return
    try:
        origin, size, root = note_open(trust, held)
    except Invalid as failure:
        raise Invalid("held_invalid", failure.code) from None
    if origin != newest[0]:
        if not (earlier_epoch(origin, newest[0]) or earlier_epoch(newest[0], origin)):
            raise Invalid("held_invalid", "another log")
        expected = None
        if size == newest[1]:
            expected = newest[2]
        elif size == 0 or (len(facts.leaves) >= size and facts.leaves[size - 1][0] == size - 1):
            expected = tree_root([digest for _, digest in facts.leaves[:size]])
        if root != expected:
            raise Invalid("held_epoch", "held in %s, the bundle is of %s" % (origin, newest[0]))
        return
    if size > newest[1]:
        raise Invalid("held_newer", "held at %d, the bundle ends at %d" % (size, newest[1]))
    same = [checkpoint[2] for checkpoint in earlier + [newest] if checkpoint[1] == size]
    if same:
        expected = same[0]
    elif size == 0 or (len(facts.leaves) >= size and facts.leaves[size - 1][0] == size - 1):
        expected = tree_root([digest for _, digest in facts.leaves[:size]])
    else:
        raise Invalid("held_unproven", size)
    if root != expected:
        raise Invalid("held_conflict", size)


def disclosures(data, facts):
    try:
        rows = canonical(data)
    except NotCanonical:
        raise Invalid("disclosure_malformed", "not canonical") from None
    if not isinstance(rows, list) or not all(
            has_exactly(row, "fact", "fields") and isinstance(row["fact"], str) for row in rows):
        raise Invalid("disclosure_malformed", "members")
    seen = set()
    for row in rows:
        commitment = facts.commitments.get(row["fact"])
        if commitment is None:
            raise Invalid("disclosure_unknown", row["fact"])
        if row["fact"] in seen:
            raise Invalid("disclosure_malformed", row["fact"])
        seen.add(row["fact"])
        fields = row["fields"]
        if not isinstance(fields, list) or len(fields) > FIELDS_MAX:
            raise Invalid("disclosure_malformed", row["fact"])
        digests = []
        for field in fields:
            digest = field_hash(field)
            if digest is None:
                raise Invalid("disclosure_malformed", row["fact"])
            digests.append(digest)
        if tree_root(digests).hex() != commitment:
            raise Invalid("disclosure_mismatch", row["fact"])
    return len(rows)


def field_hash(field):
    def is_digest(value):
        return isinstance(value, str) and HEX32.match(value)

    if has_exactly(field, "hidden") and is_digest(field["hidden"]):
        return bytes.fromhex(field["hidden"])
    if has_exactly(field, "path", "salt", "value") and is_digest(field["salt"]) and isinstance(field["path"], str):
        path = field["path"].encode()
        if len(path) < 1 << 16:
            return sha256(b"\x02" + bytes.fromhex(field["salt"]) + len(path).to_bytes(2, "big") + path
                          + dump(field["value"]))
    return None


def verify(bundle, trust_file, held=None):
    """A report: checks in order, the first failure or None, and what the bundle holds."""
    report = {"checks": [], "failure": None, "facts": 0, "not_proven": []}

    def begin(name):
        report["checks"].append({"name": name, "ok": False})

    def done():
        report["checks"][-1]["ok"] = True

    try:
        trust = trust_open(trust_file)
        begin("archive")
        files = archive(bundle)
        done()

        begin("files")
        for name in files:
            if name not in REQUIRED and not POLICY_FILE.match(name):
                raise Invalid("file_unexpected", name)
        for name in REQUIRED:
            if name not in files:
                raise Invalid("file_missing", name)
        done()

        begin("manifest")
        predicate = envelope(files, trust)
        report["not_proven"] = predicate["not_proven"]
        done()

        begin("checkpoint")
        newest = note_open(trust, files["checkpoint"], predicate["created_at_ms"])
        if (predicate["origin"], predicate["size"]) != newest[:2] or \
                newest[0].split("/")[-2:-1] != [predicate["tenant"]]:
            raise Invalid("manifest_mismatch", "checkpoint")
        done()

        begin("witnesses")
        if trust["witnesses"]["quorum"] > 0:
            raise Invalid("witness_quorum", trust["witnesses"]["quorum"])
        done()

        begin("history")
        earlier = history(files["history.json"], trust, newest)
        done()

        begin("facts")
        try:
            proof = canonical(files["proof.json"])
        except NotCanonical:
            raise Invalid("proof_malformed", "not canonical") from None
        if not has_exactly(proof, "hashes", "ranges", "size") or not is_ranges(proof["ranges"]) \
                or not is_int(proof["size"], 0) or not isinstance(proof["hashes"], list) \
                or not all(isinstance(text, str) for text in proof["hashes"]):
            raise Invalid("proof_malformed", "members")
        if proof["ranges"] != predicate["ranges"] or proof["size"] != predicate["size"]:
            raise Invalid("manifest_mismatch", "proof")
        digests = hashes(proof["hashes"])
        if digests is None:
            raise Invalid("proof_malformed", "hashes")
        facts = Facts(files["facts.jsonl"], predicate)
        report["facts"] = len(facts.leaves)
        done()

        begin("streams")
        for claim in predicate["streams"]:
            if facts.streams.get(claim["stream"], 0) != claim["last"]:
                raise Invalid("stream_gap", claim["stream"])
        done()

        begin("inclusion")
        if multi_root(newest[1], facts.leaves, digests) != newest[2]:
            raise Invalid("inclusion")
        done()

        begin("held")
        held_check(held, trust, newest, earlier, facts)
        done()

        begin("disclosures")
        disclosures(files["disclosures.json"], facts)
        done()

        begin("policies")
        for name, content in files.items():
            match = POLICY_FILE.match(name)
            if match and sha256(content).hex() != match.group(1):
                raise Invalid("policy_mismatch", name)
            if match and match.group(1) not in facts.policies:
                raise Invalid("policy_unreferenced", name)
        done()

        begin("claims")
        for claim in NOT_PROVEN:
            if claim not in predicate["not_proven"]:
                raise Invalid("overclaim", claim)
        done()
    except Invalid as failure:
        report["failure"] = {"code": failure.code, "detail": failure.detail}
    return report


def main(arguments):
    parser = argparse.ArgumentParser(description="Verifies an evidence bundle offline.")
    parser.add_argument("bundle")
    parser.add_argument("--trust", required=True, help="the trust file, from somebody you believe")
    parser.add_argument("--held", help="a checkpoint that you kept from an earlier time")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    try:
        contents = []
        for path in (options.bundle, options.trust, options.held):
            if path is None:
                contents.append(None)
                continue
            with open(path, "rb") as file:
                contents.append(file.read(BUNDLE_BYTES_MAX + 1))
    except OSError as error:
        print("cannot read %s: %s" % (error.filename, error.strerror), file=sys.stderr)
        return 2
    report = verify(*contents)
    failure = report["failure"]
    if options.json:
        print(json.dumps(report))
        return 7 if failure else 0
    for check in report["checks"]:
        print("%-12s %s" % (check["name"], "ok" if check["ok"] else "FAILED"))
    if failure:
        # A detail may quote the bundle; no control characters reach the terminal.
        detail = "".join(c if c.isprintable() else "\ufffd" for c in failure["detail"])
        print("NOT VALID: %s (%s)" % (failure["code"], detail))
        return 7
    print("VALID: %d facts" % report["facts"])
    print("not proven: " + ", ".join(report["not_proven"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

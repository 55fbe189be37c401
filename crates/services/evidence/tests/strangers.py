"""What a real installation exports, in the hands of programs that we did not write.

`securesystemslib` and `in-toto` for the DSSE envelope, `in-toto-attestation` for the statement, `metamorphic-log` for
the C2SP note. Each has to take what is ours and to refuse every change of it: of a byte of the payload, of the
signature, of the key, of the note, of its size. And the program that docs/journeys/verify.md gives to strangers is run
as it stands there. Exits non-zero when something does not hold.

    scripts/setup && cargo build --workspace --bins
    .venv/bin/python crates/services/evidence/tests/strangers.py target/debug/writ
"""

import base64
import copy
import io
import json
import pathlib
import re
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[4]
sys.path.insert(0, str(ROOT / "scripts"))
import suite
from suite import expect

try:
    from google.protobuf.json_format import ParseDict, ParseError
    from in_toto.exceptions import InvalidMetadata, SignatureVerificationError
    from in_toto.models.metadata import Metadata
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement
    from metamorphic_log import InternalError, VerifyError, checkpoint_verify
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey
except ImportError as error:
    suite.lacks(error)

MANIFEST = "manifest.dsse.json"
JOURNEY = ROOT / "docs/journeys/verify.md"


class Export:
    """A bundle, unpacked by the standard library, and the trust file that goes with it."""

    def __init__(self, path, trust_path):
        self.path, self.trust_path = path, trust_path
        with tarfile.open(path) as bundle:
            self.files = {member.name: bundle.extractfile(member).read() for member in bundle}
        self.envelope = json.loads(self.files[MANIFEST])
        self.note = self.files["checkpoint"].decode()
        self.trust = json.loads(pathlib.Path(trust_path).read_text())
        self.key = base64.b64decode(self.trust["evidence_keys"][0]["key"])
        self.keyid = self.trust["evidence_keys"][0]["id"]
        self.vkey = self.trust["logs"][0]["key"]

    def written(self, files, name):
        """The same bundle with these files, as `tar` would pack them."""
        path = pathlib.Path(self.path).with_name(name)
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as bundle:
            for file, content in files.items():
                member = tarfile.TarInfo(file)
                member.size = len(content)
                bundle.addfile(member, io.BytesIO(content))
        return str(path)


def flipped(data):
    """Each byte of `data` with one bit turned, one at a time."""
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ 1 << at % 7]) + data[at + 1:]


def count(name, tried, least):
    assert tried >= least, f"{name}: only {tried} were tried"
    print(f"  {name}: {tried} changes, each refused")


def enveloped(envelope, payload=None, signature=None, **members):
    """The envelope with other content, encoded again: what is wrong with it is the content alone."""
    changed = copy.deepcopy(envelope) | members
    if payload is not None:
        changed["payload"] = base64.b64encode(payload).decode()
    if signature is not None:
        changed["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return changed


def securesystemslib_takes(envelope, keyid, key):
    try:
        public = SSlibKey(keyid, "ed25519", "ed25519", {"public": key.hex()})
        return list(Envelope.from_dict(copy.deepcopy(envelope)).verify([public], 1)) == [keyid]
    except VerificationError:
        return False


def in_toto_takes(envelope, keyid, key):
    try:
        metadata = Metadata.from_dict(copy.deepcopy(envelope))
        metadata.verify_signature(
            {"keyid": keyid, "keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": key.hex()}})
        return True
    except (SignatureVerificationError, InvalidMetadata):
        return False


def note_taken(note, vkey):
    try:
        return checkpoint_verify(note, [vkey])
    except (VerifyError, InternalError):
        return None


def envelopes(exports):
    """The DSSE envelope, by two verifiers."""
    for export in exports:
        envelope = export.envelope
        payload = base64.b64decode(envelope["payload"])
        signature = base64.b64decode(envelope["signatures"][0]["sig"])
        for takes in (securesystemslib_takes, in_toto_takes):
            name = takes.__name__.removesuffix("_takes")
            expect(takes(envelope, export.keyid, export.key), True, f"{name} takes it")
            tried = 0
            for what, changed, keyid, key in [
                *(("payload", enveloped(envelope, payload=other), export.keyid, export.key) for other in flipped(payload)),
                *(("signature", enveloped(envelope, signature=other), export.keyid, export.key)
                  for other in flipped(signature)),
                *(("key", envelope, export.keyid, other) for other in flipped(export.key)),
                ("payload cut", enveloped(envelope, payload=payload[:-1]), export.keyid, export.key),
                ("signature cut", enveloped(envelope, signature=signature[:-1]), export.keyid, export.key),
                ("type", enveloped(envelope, payloadType="application/json"), export.keyid, export.key),
                ("key id", envelope, "evk_0000000000000000", export.key),
                ("nothing signed", enveloped(envelope, signatures=[]), export.keyid, export.key),
            ]:
                expect(takes(changed, keyid, key), False, f"{name}: another {what}")
                tried += 1
            count(name, tried, len(payload) + 96)


def statements(exports):
    """The in-toto statement: its members, and the files by their digests."""
    for export in exports:
        statement = json.loads(base64.b64decode(export.envelope["payload"]))

        def taken(change=lambda statement: None):
            changed = copy.deepcopy(statement)
            change(changed)
            try:
                read = Statement.copy_from_pb(ParseDict(changed, statement_pb2.Statement()))
                read.validate()
                return read.pb
            except (ParseError, ValueError):
                return None

        read = taken()
        expect(read is not None, True, "in-toto-attestation takes it")
        expect(read.predicate_type, "https://writ.example/evidence/v1", "the predicate's type")
        expect(read.predicate["tenant"], "ten_main", "the predicate")
        expect([subject.name for subject in read.subject], sorted(set(export.files) - {MANIFEST}), "the files")
        for what, change in [
            ("another type", lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")),
            ("no type", lambda s: s.pop("_type")),
            ("no subject", lambda s: s.update(subject=[])),
            ("a subject without a digest", lambda s: s["subject"][0].pop("digest")),
            ("a subject that is nothing", lambda s: s["subject"][0].clear()),
            ("no predicate type", lambda s: s.pop("predicateType")),
            ("no predicate", lambda s: s.pop("predicate")),
            ("a member more", lambda s: s.update(more=1)),
            ("a digest that is a number", lambda s: s["subject"][0].update(digest={"sha256": 1})),
        ]:
            expect(taken(change), None, what)


def notes(exports):
    """The checkpoint, by a verifier of C2SP notes."""
    for export in exports:
        note, vkey = export.note, export.vkey
        head = note_taken(note, vkey)
        expect(head is not None, True, "metamorphic-log takes it")
        origin, size, root = note.split("\n")[:3]
        expect((head.origin, head.size, head.extensions), (origin, int(size), []), "origin and size")
        expect(head.root, base64.b64decode(root), "root")
        # A note that a witness signed as well stays ours.
        witness = base64.b64encode(bytes(76)).decode()
        expect(note_taken(f"{note}— witness.example {witness}\n", vkey), head, "a signature by somebody else")

        text, signed = note.split("\n\n")
        name, encoded = signed.removeprefix("— ").strip().split(" ")
        name_of_key, key_hash, key = vkey.split("+", 2)
        encode = lambda data: base64.b64encode(data).decode()
        texts = [text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1:] for at in range(len(text))]
        texts += [text.replace(f"\n{size}\n", f"\n{other}\n") for other in (int(size) + 1, int(size) - 1, f"0{size}")]
        changed = [(f"{other}\n\n— {name} {encoded}\n", vkey) for other in texts]
        changed += [(f"{text}\n\n— {name} {encode(other)}\n", vkey) for other in flipped(base64.b64decode(encoded))]
        changed += [(note, f"{name_of_key}+{key_hash}+{encode(other)}") for other in flipped(base64.b64decode(key))]
        changed += [
            (note, vkey.replace("ten_main", "ten_other")),
            (note.replace("\n\n", "\n"), vkey),
            (note.replace("— ", "- "), vkey),
            (note[:-1], vkey),
            (f"{text}\n\n", vkey),
            (f"{text}\nmore\n\n— {name} {encoded}\n", vkey),
            ("", vkey),
        ]
        for other, key_given in changed:
            expect(note_taken(other, key_given), None, f"a note {other!r} under {key_given}")
        count("metamorphic-log", len(changed), len(text) + 100)


def journey(exports):
    """The program in the journey, over bundles as they are and changed."""
    blocks = re.findall(r"^```python\n(.*?)^```$", JOURNEY.read_text(), re.DOTALL | re.MULTILINE)
    expect(len(blocks), 1, "programs in the journey")

    def ends(bundle, trust):
        ran = subprocess.run([sys.executable, "-c", blocks[0], bundle, trust], capture_output=True, text=True)
        return ran.returncode, ran.stdout, ran.stderr

    for export in exports:
        code, said, why = ends(export.path, export.trust_path)
        expect(code, 0, f"the program takes it: {why}")
        whole = json.loads(base64.b64decode(export.envelope["payload"]))["predicate"]["subject"] == "log"
        expect(("signed: " in said, "whole: " in said), (True, whole), said)
    export = exports[0]
    again = export.written(export.files, "again.tar")
    expect(ends(again, export.trust_path)[0], 0, "packed again, it is still what was signed")
    for name, content in export.files.items():
        middle = len(content) // 2
        touched = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:]
        expect(ends(export.written(export.files | {name: touched}, "touched.tar"), export.trust_path)[0], 1, name)
    more = export.written(export.files | {"more.txt": b"?"}, "more.tar")
    expect(ends(more, export.trust_path)[0], 1, "a file more")
    fewer = {name: content for name, content in export.files.items() if name != "facts.jsonl"}
    expect(ends(export.written(fewer, "fewer.tar"), export.trust_path)[0], 1, "a file less")
    # Everything fits together, and is not whom the stranger believes.
    stranger = pathlib.Path(export.trust_path).with_name("stranger.json")
    other = copy.deepcopy(export.trust)
    other["logs"][0]["key"] = "writ.local/local/ten_main/1+00000000+" + base64.b64encode(b"\1" + bytes(32)).decode()
    stranger.write_text(json.dumps(other))
    expect(ends(export.path, str(stranger))[0], 1, "a trust file with another key of the log")


def exported(writ, folder, name, *what):
    """Exports, downloads, and has our own verifier say that it is valid."""
    path, trust = f"{folder}/{name}.tar", f"{folder}/trust.json"
    bundle = writ("evidence", "export", *what)["bundle"]
    for command in (["evidence", "download", bundle, "--file", path], ["trust", "show", "--file", trust],
                    ["verify", path, "--trust", trust]):
        done = writ.run(*command)
        expect(done.returncode, 0, f"writ {' '.join(command)}: {done.stderr}")
    return Export(path, trust)


if __name__ == "__main__":
    (binary,) = suite.arguments(1)
    with suite.Writ.started(binary) as writ:
        folder = writ.env["WRIT_FOLDER"]
        made = [writ("principal", "create", "--name", f"person {n}", "--kind", "person", "--roles", "auditor")
                for n in range(5)]
        principal = made[2]["principal"]
        exports = [exported(writ, folder, "log", "--all", "true"),
                   exported(writ, folder, "stream", "--stream", principal)]
        suite.run([envelopes, statements, notes, journey], exports)

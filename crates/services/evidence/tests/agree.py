"""Two verifiers, one verdict.

    agree.py MAKE_BUNDLES WRIT

MAKE_BUNDLES writes good and tampered bundles, `WRIT verify` is the verifier in Rust; the
one in Python is `verify.py` beside this folder. For every bundle both must come to
the verdict that the maker says, with the same code, after the same checks, having
counted the same facts. Neither may crash.
"""

import gzip
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = HERE.parent / "verify.py"


def load():
    spec = importlib.util.spec_from_file_location("second_verifier", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(report):
    failure = report["failure"]
    return {
        "code": failure and failure["code"],
        "facts": report["facts"],
        "checks": [(check["name"], check["ok"]) for check in report["checks"]],
    }


def main(make_bundles, writ):
    second = load()
    wrong, counts = [], {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        subprocess.run([make_bundles, str(folder)], check=True)
        cases = json.loads((folder / "cases.json").read_text())
        # What a mail gateway does to attachments.
        (folder / "gzip.bundle").write_bytes(gzip.compress((folder / "good-run.bundle").read_bytes()))
        cases.append({"name": "gzip", "bundle": "gzip.bundle", "trust": "good-run.trust", "held": None,
                      "expect": "evidence.archive_malformed"})
        for case in cases:
            paths = [str(folder / case[name]) for name in ("bundle", "trust", "held") if case[name]]
            trust_and_held = [word for pair in zip(("--trust", "--held"), paths[1:]) for word in pair]
            ran = subprocess.run([writ, "verify", paths[0], *trust_and_held, "-o", "json"],
                                 capture_output=True, check=False)
            if ran.returncode != (7 if case["expect"] else 0):
                wrong.append("%s: writ exits with %d: %s" % (case["name"], ran.returncode, ran.stderr.decode()))
                continue
            first = outcome(json.loads(ran.stdout))
            try:
                other = outcome(second.verify(*[pathlib.Path(path).read_bytes() for path in paths]))
            except Exception as error:  # noqa: BLE001 - a crash is a finding like any other
                wrong.append("%s: verify.py crashes: %r" % (case["name"], error))
                continue
            if first != other or first["code"] != case["expect"]:
                wrong.append("%s: expected %s\n    first  %s\n    second %s" % (
                    case["name"], case["expect"], first, other))
            counts[case["expect"]] = counts.get(case["expect"], 0) + 1
        wrong += command_line(folder)
    for line in wrong:
        print(line)
    print("%d bundles, %d valid, %d codes, %d disagreements" % (
        len(cases), counts.get(None, 0), len(counts) - 1, len(wrong)))
    return 1 if wrong or counts.get(None, 0) < 10 or len(counts) < 30 else 0


def command_line(folder):
    """The script as people start it."""
    wrong = []
    for name, arguments, code, text in [
        ("valid", ["good-run.bundle", "--trust", "good-run.trust"], 0, "VALID: 5 facts"),
        ("json", ["good-run.bundle", "--trust", "good-run.trust", "--json"], 0, '"failure": null'),
        ("held", ["good-whole.bundle", "--trust", "good-run.trust", "--held", "held-0-whole.held"], 0, "VALID"),
        ("invalid", ["cut-half.bundle", "--trust", "good-run.trust"], 7, "evidence.archive_malformed"),
        ("no trust", ["good-run.bundle"], 2, ""),
        ("no file", ["absent.bundle", "--trust", "good-run.trust"], 2, ""),
    ]:
        ran = subprocess.run(
            [sys.executable, str(SCRIPT), *arguments], capture_output=True, check=False, cwd=folder)
        if ran.returncode != code or text not in ran.stdout.decode():
            wrong.append("verify.py %s: exit %d, %s%s" % (
                name, ran.returncode, ran.stdout.decode(), ran.stderr.decode()))
    return wrong


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))

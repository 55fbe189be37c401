"""What the Python suites share: a stand-in or an installation to talk to, and a way to say what held.

A suite finds this module beside the requirements that it runs with:

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4] / "scripts"))
    import suite

It uses the standard library alone. What a suite proves, it proves with a package that others wrote; what stands here only
starts programs and counts.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
import urllib.request

# Longer than anything here takes on a machine that is busy with something else.
PATIENCE_S = 60


def expect(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} is not {wanted!r}")


def lacks(error):
    """Ends a suite whose package is not installed: it did not run, so it did not pass."""
    sys.exit(f"a package is missing ({error}): scripts/setup installs scripts/requirements.txt")


def arguments(count):
    """The script's arguments, so many of them, or its description and the exit code of wrong use."""
    if len(sys.argv) != count + 1:
        print(sys.modules["__main__"].__doc__, file=sys.stderr)
        sys.exit(2)
    return sys.argv[1:]


def run(checks, *given, after=lambda: None):
    """Runs every check, says how each went, and ends the script with 1 if one did not hold."""
    failed = 0
    for check in checks:
        try:
            check(*given)
            print(f"ok      {check.__name__}")
        except Exception:
            failed += 1
            print(f"FAILED  {check.__name__}\n{traceback.format_exc()}")
        finally:
            after()
    if failed:
        sys.exit(f"{failed} of {len(checks)} checks failed")
    print(f"{len(checks)} checks passed")


class Sandbox:
    """A running stand-in: its URL, its credentials, its control interface. Suites add their clients."""

    def __init__(self, url, credentials):
        self.url = url
        self.credentials = credentials

    @classmethod
    @contextlib.contextmanager
    def started(cls, serve):
        """The stand-in that the example `serve` is, until the block ends."""
        with subprocess.Popen([serve], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            url, line = server.stdout.readline().strip(), server.stdout.readline()
            if not url.startswith("http://127.0.0.1:"):
                sys.exit("the stand-in did not start")
            try:
                yield cls(url, json.loads(line))
            finally:
                # The end of its input stops it.
                server.stdin.close()
                code = server.wait(PATIENCE_S)
        if code != 0:
            sys.exit(f"the stand-in exited with {code}")

    def control(self, method, path, body=None):
        request = urllib.request.Request(
            f"{self.url}/_sandbox/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self.credentials['control_token']}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
            content = reply.read()
        return json.loads(content) if content else None

    def calm(self):
        """Takes back what faults a check asked for."""
        self.control("DELETE", "faults")


class Writ:
    """An installation in a folder of its own, and its command line."""

    def __init__(self, binary, folder, **settings):
        self.binary = binary
        plain = {name: value for name, value in os.environ.items() if not name.startswith("WRIT_")}
        self.env = plain | {
            "WRIT_FOLDER": folder,
            "WRIT_LISTEN": "127.0.0.1:0",
            "WRIT_LOG": "error",
            "WRIT_TENANT": "ten_main",
            "WRIT_KEY_FILE": os.path.join(folder, "admin.key"),
        } | settings
        self.server = subprocess.Popen([binary, "serve"], env=self.env, stdout=subprocess.PIPE, text=True)
        first = self.server.stdout.readline()
        expect(first.startswith("writ serves "), True, f"the first line {first!r}")
        self.env["WRIT_URL"] = first.split()[2]

    @classmethod
    @contextlib.contextmanager
    def started(cls, binary, **settings):
        """A fresh installation, until the block ends."""
        with tempfile.TemporaryDirectory() as folder:
            writ = cls(binary, os.path.join(folder, "data"), **settings)
            try:
                yield writ
            finally:
                writ.server.terminate()
                writ.server.wait(PATIENCE_S)

    def __call__(self, *args):
        """What a command answers, which must succeed."""
        done = self.run(*args, "-o", "json")
        if done.returncode != 0:
            raise AssertionError(f"writ {' '.join(args)}: exit code {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def run(self, *args):
        """A command as it ended."""
        return subprocess.run([self.binary, *args], env=self.env, capture_output=True, text=True)

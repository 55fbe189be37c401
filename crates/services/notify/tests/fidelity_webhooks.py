"""Receives webhooks as a customer would, with the `standardwebhooks` package, from a real `writ serve`.

The Rust tests say what is sent; this says that a verifier which knows nothing of us takes it: the signature by the one
secret, by both while one is being changed, and of a delivery that came a second time. And that it takes nothing else.
Exits non-zero when something does not hold.

    cargo build --workspace --bins
    .venv/bin/python crates/services/notify/tests/fidelity_webhooks.py target/debug/writ
"""

import http.server
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading

try:
    from standardwebhooks import Webhook
    from standardwebhooks.webhooks import WebhookVerificationError
except ImportError as error:
    sys.exit(f"standardwebhooks is not installed ({error}): scripts/setup")

# Longer than the longest first wait before a delivery comes again.
PATIENCE_S = 60


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers as it is told, 204 otherwise, and hands on what came."""

    protocol_version = "HTTP/1.1"
    came = queue.Queue()
    answers = queue.Queue()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            status = self.answers.get_nowait()
        except queue.Empty:
            status = 204
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()
        self.came.put((dict(self.headers), body))

    def log_message(self, *_):
        pass


class Writ:
    """An installation in a folder of its own, and its command line."""

    def __init__(self, binary, folder, target):
        self.binary = binary
        plain = {name: value for name, value in os.environ.items() if not name.startswith("WRIT_")}
        self.env = plain | {
            "WRIT_FOLDER": folder,
            "WRIT_LISTEN": "127.0.0.1:0",
            "WRIT_LOG": "error",
            "WRIT_PRIVATE_HOSTS": target,
            "WRIT_TENANT": "ten_main",
            "WRIT_KEY_FILE": os.path.join(folder, "admin.key"),
        }
        self.server = subprocess.Popen([binary, "serve"], env=self.env, stdout=subprocess.PIPE, text=True)
        first = self.server.stdout.readline()
        expect(first.startswith("writ serves "), True, f"the first line {first!r}")
        self.env["WRIT_URL"] = first.split()[2]

    def __call__(self, *args):
        done = subprocess.run([self.binary, *args, "-o", "json"], env=self.env, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"writ {' '.join(args)}: exit code {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def stop(self):
        self.server.terminate()
        self.server.wait(PATIENCE_S)


def expect(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} is not {wanted!r}")


def takes(secret, headers, body):
    try:
        return Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return None


def next_delivery():
    return Receiver.came.get(timeout=PATIENCE_S)


def signed_and_only_so(secret, other):
    headers, body = next_delivery()
    event = takes(secret, headers, body)
    expect(event is not None, True, "the verifier takes it")
    expect(headers["webhook-id"], event["id"], "webhook-id")
    expect(event["specversion"], "1.0", "a CloudEvent")
    expect(headers["content-type"], "application/cloudevents+json", "its media type")
    expect(takes(other, headers, body), None, "by another secret")
    expect(takes(secret, headers, body.replace(b"1.0", b"1.1", 1)), None, "another body")
    expect(takes(secret, headers | {"webhook-id": "fct_0"}, body), None, "another id")
    expect(takes(secret, headers | {"webhook-timestamp": "1000000000"}, body), None, "another time")
    return event


def main(binary):
    target = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=target.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{target.server_address[1]}"
    with tempfile.TemporaryDirectory() as folder:
        writ = Writ(binary, os.path.join(folder, "data"), address)
        try:
            made = writ("webhook", "create", "--target", f"http://{address}/in", "--kinds", "access.*")
            webhook, secret = made["webhook"], made["secret"]
            other = "whsec_" + "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
            expect("secret" in writ("webhook", "show", webhook), False, "the secret is shown once")

            writ("webhook", "test", webhook)
            event = signed_and_only_so(secret, other)
            expect(event["type"], "notify.webhook.tested", "a test")
            print("a delivery passes the verifier, and nothing that differs from it does")

            writ("principal", "create", "--name", "one", "--kind", "person", "--roles", "auditor")
            event = signed_and_only_so(secret, other)
            expect(event["type"], "access.principal.created", "a fact")
            print("a fact passes the verifier")

            newer = writ("webhook", "rotate", webhook)["secret"]
            writ("webhook", "test", webhook)
            headers, body = next_delivery()
            taken = [takes(each, headers, body) is not None for each in (secret, newer, other)]
            expect(taken, [True, True, False], "while a secret is being changed")
            print("both secrets verify while one is being changed")

            Receiver.answers.put(500)
            writ("webhook", "test", webhook)
            first, _ = next_delivery()
            second, body = next_delivery()
            expect(second["webhook-id"], first["webhook-id"], "the id of what comes again")
            expect(takes(newer, second, body) is not None, True, "what comes again")
            print("what was refused comes again, signed anew, under the same id")
        finally:
            writ.stop()
    target.shutdown()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: fidelity_webhooks.py target/debug/writ")
    main(sys.argv[1])

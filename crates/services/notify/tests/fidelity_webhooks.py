"""Receives webhooks as a customer would, with the `standardwebhooks` package, from a real `writ serve`.

The Rust tests say what is sent; this says that a verifier which knows nothing of us takes it: the signature by the one
secret, by both while one is being changed, and of a delivery that came a second time. And that it takes nothing else.
Exits non-zero when something does not hold.

    scripts/setup && cargo build --workspace --bins
    .venv/bin/python crates/services/notify/tests/fidelity_webhooks.py target/debug/writ
"""

import http.server
import pathlib
import queue
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4] / "scripts"))
import suite
from suite import expect

try:
    from standardwebhooks import Webhook
    from standardwebhooks.webhooks import WebhookVerificationError
except ImportError as error:
    suite.lacks(error)


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


def takes(secret, headers, body):
    try:
        return Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return None


def next_delivery():
    return Receiver.came.get(timeout=suite.PATIENCE_S)


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


def webhooks_as_receivers_see_them(binary):
    target = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=target.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{target.server_address[1]}"
    with suite.Writ.started(binary, WRIT_PRIVATE_HOSTS=address) as writ:
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
    target.shutdown()


if __name__ == "__main__":
    suite.run([webhooks_as_receivers_see_them], *suite.arguments(1))

"""Holds the Slack stand-in, and our check of signatures, against slack_sdk, Slack's own Python client.

The Rust tests say what the stand-in does; this says that a client which knows nothing of it gets along with it, that
the callbacks it hands out pass Slack's own verifier, and that ours agrees with that verifier on good and bad cases.
Exits non-zero when something does not hold.

    scripts/setup && cargo build --workspace --examples
    .venv/bin/python crates/edge/sandbox/tests/fidelity_slack.py target/debug/examples/serve target/debug/examples/slack_verify
"""

import json
import pathlib
import subprocess
import sys
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4] / "scripts"))
import suite
from suite import expect

try:
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError
    from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler
    from slack_sdk.signature import Clock, SignatureVerifier
except ImportError as error:
    suite.lacks(error)

CHANNEL = "C0APPROVALS"


class Stage(suite.Sandbox):
    """The stand-in, and the client made for it."""

    def __init__(self, url, credentials):
        super().__init__(url, credentials)
        self.slack = credentials["slack"]

    def client(self, token=None, **options):
        return WebClient(token=token or self.slack["bot_token"], base_url=f"{self.url}/slack/api/", **options)


def refusal(call, what):
    try:
        call()
    except SlackApiError as error:
        return error.response["error"]
    raise AssertionError(f"{what} was not refused")


def card(value="crd_fidelity"):
    button = lambda action, text: {
        "type": "button", "action_id": action, "text": {"type": "plain_text", "text": text}, "value": value,
    }
    return [
        {"type": "section", "text": {"type": "mrkdwn", "text": "*Approval wanted*"}},
        {"type": "actions", "block_id": "decide", "elements": [button("approval_grant", "Grant"), button("approval_deny", "Decline")]},
    ]


def who_am_i(stage):
    answer = stage.client().auth_test()
    expect((answer["ok"], answer["team_id"]), (True, stage.slack["team"]), "auth.test")
    expect(refusal(lambda: stage.client("xoxb-wrong").auth_test(), "a wrong token"), "invalid_auth", "a wrong token")
    expect(stage.client().users_info(user="U0ANN")["user"]["name"], "ann", "users.info")
    expect(refusal(lambda: stage.client().users_info(user="U0X"), "a stranger"), "user_not_found", "a stranger")


def messages(stage):
    client = stage.client()
    posted = client.chat_postMessage(channel=CHANNEL, text="Approval wanted: naïve & <b>", blocks=card())
    expect((posted["ok"], posted["channel"]), (True, CHANNEL), "chat.postMessage")
    expect(posted["message"]["text"], "Approval wanted: naïve & <b>", "its text")
    updated = client.chat_update(channel=CHANNEL, ts=posted["ts"], text="Granted", blocks=card()[:1])
    expect((updated["ok"], updated["ts"]), (True, posted["ts"]), "chat.update")
    found = [m for m in stage.control("GET", "slack")["messages"] if m["ts"] == posted["ts"]]
    expect([(m["text"], m["updates"], len(m["blocks"])) for m in found], [("Granted", 1, 1)], "the message now")
    told = client.chat_postEphemeral(channel=CHANNEL, user="U0ANN", text="only you")
    assert told["message_ts"], "chat.postEphemeral"
    for what, call, word in [
        ("no channel", lambda: client.chat_postMessage(channel="C0GONE", text="x"), "channel_not_found"),
        ("no text", lambda: client.chat_postMessage(channel=CHANNEL, text=""), "no_text"),
        ("no message", lambda: client.chat_update(channel=CHANNEL, ts="1.000001", text="x"), "message_not_found"),
        ("a stranger", lambda: client.chat_postEphemeral(channel=CHANNEL, user="U0X", text="x"), "user_not_in_channel"),
        ("too many blocks", lambda: client.chat_postMessage(channel=CHANNEL, text="x", blocks=card()[:1] * 51), "invalid_blocks"),
        ("no such method", lambda: client.api_call("chat.explode"), "unknown_method"),
    ]:
        expect(refusal(call, what), word, what)


def views(stage):
    client = stage.client()
    posted = client.chat_postMessage(channel=CHANNEL, text="card", blocks=card())
    callback = stage.control("POST", "slack/clicks", {"user": "U0ANN", "channel": CHANNEL, "ts": posted["ts"], "action_id": "approval_grant"})
    payload = json.loads(urllib.parse.parse_qs(callback["body"])["payload"][0])
    view = {"type": "modal", "title": {"type": "plain_text", "text": "Why?"}, "blocks": []}
    assert client.views_open(trigger_id=payload["trigger_id"], view=view)["view"]["id"], "views.open"
    expect(refusal(lambda: client.views_open(trigger_id="nothing", view=view), "a made-up trigger"), "invalid_trigger_id", "trigger")


def rate_limits(stage):
    rule = {"service": "slack", "path_contains": "chat.postMessage", "times": 1, "fault": {"kind": "rate_limited", "retry_after_s": 1}}
    stage.control("POST", "faults", rule)
    try:
        stage.client().chat_postMessage(channel=CHANNEL, text="too fast")
        raise AssertionError("not limited")
    except SlackApiError as error:
        expect((error.response.status_code, error.response.headers["retry-after"]), (429, "1"), "a rate limit")
    stage.control("DELETE", "faults")
    stage.control("POST", "faults", rule)
    client = stage.client(retry_handlers=[RateLimitErrorRetryHandler(max_retry_count=1)])
    before = stage.control("GET", "slack")["counts"]["posts"]
    assert client.chat_postMessage(channel=CHANNEL, text="later")["ok"], "the client's own retry"
    expect(stage.control("GET", "slack")["counts"]["posts"] - before, 1, "posted once")
    stage.control("DELETE", "faults")


def callbacks(stage):
    posted = stage.client().chat_postMessage(channel=CHANNEL, text="card", blocks=card("crd_7"))
    ask = {"user": "U0BOB", "channel": CHANNEL, "ts": posted["ts"], "action_id": "approval_deny"}
    callback = stage.control("POST", "slack/clicks", ask)
    verifier = SignatureVerifier(stage.slack["signing_secret"])
    headers = dict(callback["headers"])
    assert verifier.is_valid_request(callback["body"], headers), "Slack's verifier takes the stand-in's callback"
    assert not verifier.is_valid_request(callback["body"] + "x", headers), "and no other body"
    late = stage.control("POST", "slack/clicks", {**ask, "at_ms": int(time.time() * 1000) - 600_000})
    assert not verifier.is_valid_request(late["body"], dict(late["headers"])), "and no late one"
    payload = json.loads(urllib.parse.parse_qs(callback["body"])["payload"][0])
    expect(payload["type"], "block_actions", "the payload's type")
    expect((payload["user"]["id"], payload["team"]["id"], payload["api_app_id"]), ("U0BOB", stage.slack["team"], stage.slack["app"]), "who")
    expect([(a["action_id"], a["value"]) for a in payload["actions"]], [("approval_deny", "crd_7")], "what")
    expect((payload["container"]["channel_id"], payload["container"]["message_ts"]), (CHANNEL, posted["ts"]), "where")


class Fixed(Clock):
    def __init__(self, now_s):
        self.now_s = now_s

    def now(self):
        return self.now_s


def verdicts(stage):
    """Slack's verifier and ours on the same cases. Ours is stricter in form, which these keep to."""
    secret, other = "8f742231b10e8888abcd99yyyzzz85a5", "0123456789abcdef0123456789abcdef"
    now_s = 1_800_000_000
    bodies = ["", "payload=%7B%7D", "a=1&b=%C3%A9", "naïve ☃ \U0001f600", "line\nbreak\r\n\ttab", "x" * 70_000]
    cases = []
    for body in bodies:
        for offset in [0, -1, -299, -300, -301, 299, 300, 301, -3600, 86_400]:
            stamp = str(now_s + offset)
            good = SignatureVerifier(secret).generate_signature(timestamp=stamp, body=body)
            wrong = SignatureVerifier(other).generate_signature(timestamp=stamp, body=body)
            shifted = SignatureVerifier(secret).generate_signature(timestamp=str(now_s + offset + 1), body=body)
            for signature in [good, wrong, shifted, good.upper(), good[:-1], good[3:], "v1" + good[2:], "v0=", "v0=" + "0" * 64]:
                cases.append((secret, stamp, signature, body))
            cases.append((secret, stamp, good, body + " "))
            cases.append((other, stamp, good, body))
    lines = [json.dumps({"secret": s, "timestamp": t, "signature": g, "body": b, "now_ms": now_s * 1000}) for s, t, g, b in cases]
    said = subprocess.run([stage.ours], input="\n".join(lines), capture_output=True, text=True, check=True, timeout=60).stdout.split("\n")
    expect(len(said) - 1, len(cases), "an answer to each")
    agreed = {True: 0, False: 0}
    for (s, t, g, b), answer in zip(cases, said):
        theirs = bool(SignatureVerifier(s, clock=Fixed(now_s)).is_valid(b, t, g))
        if theirs != (answer == "ok"):
            raise AssertionError(f"Slack's verifier says {theirs}, ours {answer}: {t} {g} {b[:40]!r}")
        agreed[theirs] += 1
    assert agreed[True] > 20 and agreed[False] > 200, f"both verdicts occur: {agreed}"
    print(f"  verifiers agree on {agreed[True]} good and {agreed[False]} bad cases")


if __name__ == "__main__":
    serve, ours = suite.arguments(2)
    with Stage.started(serve) as stage:
        stage.ours = ours
        suite.run([who_am_i, messages, views, rate_limits, callbacks, verdicts], stage, after=stage.calm)

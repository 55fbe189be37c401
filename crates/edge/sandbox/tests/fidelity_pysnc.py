"""Holds the ServiceNow stand-in against pysnc, the vendor's own Python client.

The Rust tests say what the stand-in does; this says that a client which knows nothing of it, and was written
against real instances, gets along with it. Exits non-zero when something does not hold.

    scripts/setup && cargo build --workspace --examples
    .venv/bin/python crates/edge/sandbox/tests/fidelity_pysnc.py target/debug/examples/serve

pysnc accepts https URLs only, and the stand-in speaks plain HTTP on loopback. The client itself is left as it
is: a transport adapter, which is how `requests` is meant to be extended, takes the last step without TLS.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4] / "scripts"))
import suite
from suite import expect

try:
    import requests
    from pysnc import ServiceNowClient
    from pysnc.auth import ServiceNowClientCredentialsFlow
    from pysnc.exceptions import AuthenticationException, RequestException, RoleException
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry
except ImportError as error:
    suite.lacks(error)


class PlainLoopback(HTTPAdapter):
    """Sends https://127.0.0.1 requests as http, and nothing else anywhere."""

    def send(self, request, **options):
        prefix = "https://127.0.0.1:"
        if not request.url.startswith(prefix):
            raise RuntimeError(f"not on loopback: {request.url}")
        request.url = "http://127.0.0.1:" + request.url[len(prefix):]
        return super().send(request, **options)


class PlainTokens(ServiceNowClientCredentialsFlow):
    """The client's own flow; only the scheme of its token URL, which it fetches outside the session, is plain."""

    def authorization_url(self, authorization_base_url):
        url = super().authorization_url(authorization_base_url)
        prefix = "https://127.0.0.1:"
        if not url.startswith(prefix):
            raise RuntimeError(f"not on loopback: {url}")
        return "http://127.0.0.1:" + url[len(prefix):]


class Stage(suite.Sandbox):
    """The stand-in, and the client made for it."""

    def client(self, auth=None, retries=True):
        auth = auth or (self.credentials["user_name"], self.credentials["password"])
        client = ServiceNowClient(self.url.replace("http://", "https://"), auth)
        # The same retries as the client's own adapter, which this one replaces.
        retry = Retry(total=4, backoff_factor=0.01, status_forcelist=[429, 500, 502, 503]) if retries else 0
        client.session.mount(client.instance, PlainLoopback(max_retries=retry))
        return client


def inserted(client, **fields):
    record = client.GlideRecord("incident")
    record.initialize()
    for name, value in fields.items():
        record.set_value(name, value)
    assert record.insert(), "insert returns the sys_id"
    return record


def group_id(client, name):
    group = client.GlideRecord("sys_user_group")
    assert group.get("name", name), f"the group {name}"
    return group.get_value("sys_id")


def crud(stage):
    client = stage.client()
    record = inserted(client, short_description="Fidelity: insert", impact="2", urgency="1", bunk_field="ignored")
    expect(len(record.get_value("sys_id")), 32, "sys_id")
    expect(record.get_value("number")[:3], "INC", "number")
    expect(record.get_display_value("priority"), "2 - High", "computed priority, shown")
    expect(len(record.get_value("opened_by")), 32, "opened_by is a reference")
    expect(record.get_display_value("opened_by"), "Integration User", "opened_by, shown")
    assert "bunk_field" not in record, "an unknown field is ignored"

    again = client.GlideRecord("incident")
    assert again.get(record.get_value("sys_id")), "get by sys_id"
    expect(bool(again.active), True, "active")
    again.short_description = "Fidelity: update"
    again.assignment_group = group_id(client, "Storage")
    assert again.changes()
    assert again.update(), "update returns the sys_id"
    expect(again.get_value("short_description"), "Fidelity: update", "updated")
    expect(again.get_display_value("assignment_group"), "Storage", "reference, shown")
    expect(again.get_value("sys_mod_count"), "1", "sys_mod_count")

    number = client.GlideRecord("incident")
    assert number.get("number", record.get_value("number")), "get by number"
    expect(number.get_value("sys_id"), record.get_value("sys_id"), "the same record")

    assert again.delete(), "delete"
    gone = client.GlideRecord("incident")
    expect(gone.get(record.get_value("sys_id")), False, "a deleted record")
    expect(client.GlideRecord("incident").get("bunk"), False, "no such record")


def custom_sys_id(stage):
    client = stage.client()
    chosen = "AAAABBBBCCCCDDDDEEEEFFFF00001111"
    record = client.GlideRecord("incident")
    record.initialize()
    record.set_new_guid_value(chosen)
    record.short_description = "Fidelity: chosen sys_id"
    expect(str(record.insert()), chosen, "a chosen sys_id is kept")
    assert record.delete()


def queries(stage):
    client = stage.client()
    names = [f"Fidelity query {n}" for n in range(4)]
    for n, name in enumerate(names):
        inserted(client, short_description=name, impact=str(1 + n % 3))

    def found(build):
        record = client.GlideRecord("incident")
        record.add_query("short_description", "STARTSWITH", "Fidelity query")
        build(record)
        record.query()
        return [row.get_value("short_description") for row in record], len(record)

    for what, build, wanted in [
        ("all, in order", lambda gr: gr.order_by("short_description"), names),
        ("descending", lambda gr: gr.order_by_desc("short_description"), names[::-1]),
        ("equal", lambda gr: gr.add_query("impact", "2"), [names[1]]),
        ("not equal", lambda gr: (gr.add_query("impact", "!=", "1"), gr.order_by("short_description")), names[1:3]),
        ("less or equal", lambda gr: (gr.add_query("impact", "<=", "2"), gr.order_by("number")), [names[0], names[1], names[3]]),
        ("contains", lambda gr: gr.add_query("short_description", "CONTAINS", "query 3"), [names[3]]),
        ("like", lambda gr: gr.add_query("short_description", "LIKE", "QUERY 3"), [names[3]]),
        ("ends with", lambda gr: gr.add_query("short_description", "ENDSWITH", "2"), [names[2]]),
        ("in", lambda gr: (gr.add_query("impact", "IN", "2,3"), gr.order_by("number")), names[1:3]),
        ("not in", lambda gr: (gr.add_query("impact", "NOT IN", "2,3"), gr.order_by("number")), [names[0], names[3]]),
        ("or", lambda gr: (gr.add_query("impact", "2").add_or_condition("impact", "3"), gr.order_by("number")), names[1:3]),
        ("encoded", lambda gr: gr.add_encoded_query("impact=3^active=true"), [names[2]]),
        ("empty", lambda gr: (gr.add_null_query("assignment_group"), gr.order_by("number")), names),
        ("not empty", lambda gr: gr.add_not_null_query("assignment_group"), []),
    ]:
        rows, total = found(build)
        expect(rows, wanted, what)
        expect(total, len(wanted), f"row count of {what}")


def paging(stage):
    client = stage.client()
    for n in range(25):
        inserted(client, short_description=f"Fidelity page {n:02}")
    record = client.GlideRecord("incident", batch_size=10)
    record.fields = ["number", "short_description"]
    record.add_query("short_description", "STARTSWITH", "Fidelity page")
    record.order_by("short_description")
    record.query()
    expect(len(record), 25, "total of all pages")
    rows = [row.get_value("short_description") for row in record]
    expect(rows, [f"Fidelity page {n:02}" for n in range(25)], "rows of all pages")
    expect(sorted(record.fields), ["number", "short_description", "sys_id"], "only the fields asked for")
    few = client.GlideRecord("incident")
    few.limit = 5
    few.query()
    expect(sum(1 for _ in few), 5, "a limit")


def display_values(stage):
    client = stage.client()
    sys_id = inserted(client, short_description="Fidelity display", state="2").get_value("sys_id")
    for mode, value, shown in [("all", "2", "In Progress"), (False, "2", "2"), (True, "In Progress", "In Progress")]:
        record = client.GlideRecord("incident")
        record.display_value = mode
        assert record.get(sys_id)
        expect((record.get_value("state"), record.get_display_value("state")), (value, shown), f"display_value={mode}")
    linked = client.GlideRecord("incident")
    linked.exclude_reference_link = False
    assert linked.get(sys_id)
    link = linked.opened_by.get_link()
    expect(link, f"{stage.url}/api/now/table/sys_user/{linked.get_value('opened_by')}", "reference link")
    walked = client.GlideRecord("incident")
    walked.fields = ["opened_by.user_name"]
    assert walked.get(sys_id)
    expect(walked.get_value("opened_by.user_name"), "integration", "a dotted field")


def work_notes(stage):
    client = stage.client()
    sys_id = inserted(client, short_description="Fidelity notes").get_value("sys_id")
    for _ in range(2):
        record = client.GlideRecord("incident")
        assert record.get(sys_id)
        record.work_notes = "Routed. [ref:fidelity-1]"
        assert record.update()
    expect(record.get_value("work_notes"), "", "the record holds no note")
    assert record.get_display_value("work_notes").count("Routed. [ref:fidelity-1]") == 2, "shown joined"
    journal = client.GlideRecord("sys_journal_field")
    journal.add_query("element_id", sys_id)
    journal.add_query("element", "work_notes")
    journal.query()
    expect([row.get_value("value") for row in journal], ["Routed. [ref:fidelity-1]"] * 2, "a repeat makes two")
    assert stage.control("GET", "effects")["duplicates"]["notes"] >= 1, "and the stand-in counts it"


def batches(stage):
    client = stage.client()
    for n in range(5):
        inserted(client, short_description=f"Fidelity batch {n}")

    def query():
        record = client.GlideRecord("incident")
        record.add_query("short_description", "STARTSWITH", "Fidelity batch")
        record.query()
        return record

    record = query()
    while record.next():
        record.urgency = "1"
    assert record.update_multiple(), "update many"
    expect({row.get_value("urgency") for row in query()}, {"1"}, "all updated")
    assert query().delete_multiple(), "delete many"
    expect(len(query()), 0, "all deleted")
    # A query too long for a URL goes through a batch; conditions on unknown fields are ignored.
    target = inserted(client, short_description="Fidelity long").get_value("sys_id")
    long = client.GlideRecord("incident")
    for _ in range(2300):
        long.add_query("AAAA", "BBBB")
    long.add_query("sys_id", target)
    long.query()
    expect([row.get_value("sys_id") for row in long], [target], "a query longer than a URL")


def silent_losses(stage):
    client = stage.client()
    record = inserted(client, short_description="Fidelity losses")
    record.assignment_group = "No Such Group"
    record.priority = "1"
    assert record.update(), "accepted"
    expect(record.get_value("assignment_group"), "", "an unresolvable reference is stored empty")
    expect(record.get_value("priority"), "5", "priority is computed")
    stage.control("POST", "faults", {"method": "PATCH", "times": 1, "fault": {"kind": "dropped_fields", "fields": ["urgency"]}})
    record.urgency = "1"
    assert record.update(), "accepted"
    expect(record.get_value("urgency"), "3", "a dropped field")


def errors(stage):
    for auth in [("integration", "wrong"), ("nobody", "stand-in-password")]:
        try:
            stage.client(auth).GlideRecord("incident").query()
        except AuthenticationException:
            continue
        raise AssertionError(f"{auth} is served")
    token = requests.Session()
    token.headers["authorization"] = f"Bearer {stage.credentials['bearer_token']}"
    assert stage.client(token).GlideRecord("incident").get("number", "INC0010001"), "a bearer token"

    client = stage.client()
    record = inserted(client, short_description="Fidelity errors")
    record.state = "6"
    try:
        record.update()
        raise AssertionError("resolved without a code")
    except RoleException as error:
        assert "Data Policy Exception" in str(error) and "Resolution code" in str(error), error
    try:
        client.GlideRecord("no_such_table").query()
        raise AssertionError("a table that does not exist")
    except RequestException as error:
        assert "Invalid table" in str(error), error


def oauth(stage):
    known = stage.credentials["oauth"]
    flow = PlainTokens(known["client_id"], known["client_secret"])
    client = stage.client(flow)
    assert client.GlideRecord("incident").get("number", "INC0010001"), "read with a token"
    record = inserted(client, short_description="Fidelity: by token")
    expect(record.get_display_value("opened_by"), "Integration User", "the token is the integration user's")
    issued = stage.control("GET", "effects")["tokens"]["issued"]
    assert client.GlideRecord("incident").get("number", "INC0010001"), "read again"
    expect(stage.control("GET", "effects")["tokens"]["issued"], issued, "one token for many calls")
    # Revoked early, nobody tells the client: its next call is a 401.
    stage.control("DELETE", "tokens")
    try:
        client.GlideRecord("incident").query()
        raise AssertionError("a revoked token is served")
    except AuthenticationException:
        pass
    assert stage.client(PlainTokens(known["client_id"], known["client_secret"])), "a new one is issued"
    for wrong in [("nobody", known["client_secret"]), (known["client_id"], "wrong")]:
        try:
            stage.client(PlainTokens(*wrong))
        except AuthenticationException as error:
            assert "401" in str(error) and "Invalid client" in str(error), error
            continue
        raise AssertionError(f"{wrong[0]} gets a token")


def faults(stage):
    client = stage.client()
    # The client's own retries get over a rate limit on a read.
    stage.control("POST", "faults", {"method": "GET", "times": 1, "fault": {"kind": "rate_limited", "retry_after_s": 0}})
    record = client.GlideRecord("incident")
    assert record.get("number", "INC0010001"), "retried after 429"
    # The write took effect although the connection broke.
    record = inserted(client, short_description="Fidelity drop")
    stage.control("POST", "faults", {"method": "PATCH", "times": 1, "fault": {"kind": "drop_after_effect"}})
    record.work_notes = "Lost reply. [ref:fidelity-2]"
    try:
        stage_client = stage.client(retries=False)
        record._client = stage_client
        record.update()
        raise AssertionError("a reply came")
    except requests.exceptions.ConnectionError:
        pass
    journal = client.GlideRecord("sys_journal_field")
    journal.add_query("value", "LIKE", "[ref:fidelity-2]")
    journal.query()
    expect(len(journal), 1, "the note is there, once")


CHECKS = [crud, custom_sys_id, queries, paging, display_values, work_notes, batches, silent_losses, errors, oauth, faults]


if __name__ == "__main__":
    (serve,) = suite.arguments(1)
    with Stage.started(serve) as stage:
        suite.run(CHECKS, stage, after=stage.calm)

"""Holds the stand-ins for hosted models against the vendors' own Python clients, `openai` and `anthropic`.

The Rust tests say what the stand-ins do; this says that clients which know nothing of them get along with them: answers
whole and streamed, structured output, usage, errors as the clients' own exceptions, and their retries, counted where they
arrive. `openai` is used twice, as itself and as its client for Azure. Exits non-zero when something does not hold.

    scripts/setup && cargo build --workspace --examples
    .venv/bin/python crates/edge/sandbox/tests/fidelity_models.py target/debug/examples/serve
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4] / "scripts"))
import suite
from suite import expect

try:
    import anthropic
    import httpx2
    import openai
except ImportError as error:
    suite.lacks(error)

TICKET = "My laptop screen is broken"
VERSION = "stand-in-2026-11-01"
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["assignment_group", "confidence"],
    "properties": {
        "assignment_group": {"type": "string", "enum": ["Access", "Hardware"]},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    },
}
EXPECTED = {"assignment_group": "Hardware", "confidence": 0.8}
CHAT = [{"role": "system", "content": "Classify the ticket."}, {"role": "user", "content": TICKET}]
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
TOOL = {
    "tools": [{"name": "answer", "description": "Takes the answer.", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "answer"},
}


class Stage(suite.Sandbox):
    """The stand-ins, and the clients made for them."""

    def __init__(self, url, credentials):
        super().__init__(url, credentials)
        self.key = credentials["model_key"]

    def openai(self, **options):
        return openai.OpenAI(**{"base_url": f"{self.url}/v1", "api_key": self.key, "max_retries": 0, **options})

    def azure(self, **options):
        usual = {"azure_endpoint": self.url, "api_key": self.key, "api_version": "2024-10-21", "max_retries": 0}
        return openai.AzureOpenAI(**{**usual, **options})

    def anthropic(self, **options):
        return anthropic.Anthropic(**{"base_url": self.url, "api_key": self.key, "max_retries": 0, **options})

    def fault(self, kind, times=1, **fields):
        self.control("POST", "faults", {"service": "model", "times": times, "fault": {"kind": kind, **fields}})

    def arrived(self):
        """Requests to the models, and answers they made."""
        counted = self.control("GET", "effects")
        return counted["requests"]["model"], counted["model_work"]["answers"]


def raises(kind, call, what, **attributes):
    """The call fails with exactly this exception of the client's, not a wider one."""
    try:
        call()
    except Exception as error:
        if type(error) is not kind:
            raise AssertionError(f"{what}: {type(error).__name__} ({error}) is not {kind.__name__}") from error
        for name, wanted in attributes.items():
            expect(getattr(error, name), wanted, f"{what}: {name}")
        return error
    raise AssertionError(f"{what}: nothing was raised")


def complete(client, **more):
    return client.chat.completions.create(model="stand-in", messages=CHAT, **more)


def message(client, **more):
    usual = {"model": "stand-in", "max_tokens": 100, "system": CHAT[0]["content"], "messages": CHAT[1:]}
    return client.messages.create(**{**usual, **more})


def openai_answers(stage):
    for client in (stage.openai(), stage.azure(), stage.azure(azure_deployment="stand-in")):
        reply = complete(client, response_format=FORMAT)
        expect(json.loads(reply.choices[0].message.content), EXPECTED, "structured output")
        expect((reply.model, reply.choices[0].finish_reason), (VERSION, "stop"), "model and end")
        usage = reply.usage
        expect((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (8, 1, 9), "usage")
        expect(usage.prompt_tokens_details.cached_tokens, 0, "cached tokens")
        expect(usage.completion_tokens_details.reasoning_tokens, 0, "reasoning tokens")
        assert reply._request_id.startswith("req_"), "the request id reaches the client"
        cut = complete(client, max_completion_tokens=1)
        expect((cut.choices[0].finish_reason, cut.usage.completion_tokens), ("length", 1), "a cut answer")
    expect([model.id for model in stage.openai().models.list()], ["stand-in", VERSION], "models")
    # Azure's version-less API is spoken by the plain client.
    plain = stage.openai(base_url=f"{stage.url}/openai/v1", default_headers={"api-key": stage.key})
    expect(complete(plain).model, VERSION, "the version-less API")


def openai_streams(stage):
    for client in (stage.openai(), stage.azure()):
        chunks = list(complete(client, response_format=FORMAT, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        expect(json.loads(text), EXPECTED, "a streamed answer")
        expect([chunk.usage.total_tokens for chunk in chunks if chunk.usage], [9], "usage comes once")
        expect(chunks[-1].choices, [], "usage comes in a chunk of its own, at the end")
        expect([c.choices[0].finish_reason for c in chunks if c.choices][-1], "stop", "the end")
        unasked = list(complete(client, stream=True))
        expect([chunk.usage for chunk in unasked if chunk.usage], [], "no usage unless asked for")
    # The client's own accumulation over a stream.
    with stage.openai().chat.completions.stream(model="stand-in", messages=CHAT, response_format=FORMAT) as stream:
        final = stream.get_final_completion()
    expect(json.loads(final.choices[0].message.content), EXPECTED, "accumulated by the client")


def openai_errors(stage):
    for client in (stage.openai(), stage.azure()):
        is_azure = isinstance(client, openai.AzureOpenAI)
        call = lambda: complete(client)
        for kind, fields, error, status in [
            ("rate_limited", {"retry_after_s": 7}, openai.RateLimitError, 429),
            ("expired_token", {}, openai.AuthenticationError, 401),
            ("overloaded", {}, openai.InternalServerError, 503),
            ("context_exceeded", {}, openai.BadRequestError, 400),
            ("server_error", {"status": 500}, openai.InternalServerError, 500),
            ("server_error_after_effect", {"status": 504}, openai.InternalServerError, 504),
        ]:
            stage.fault(kind, **fields)
            found = raises(error, call, kind, status_code=status)
            if kind == "rate_limited":
                expect(found.response.headers["retry-after"], "7", "Retry-After")
            if kind == "context_exceeded":
                expect(found.code, "context_length_exceeded", "the code of a prompt that is too long")
        stage.fault("drop_after_effect")
        raises(openai.APIConnectionError, call, "a lost reply")
        stage.fault("hang_after_effect")
        raises(openai.APITimeoutError, lambda: complete(client.with_options(timeout=0.5)), "no reply")
        stage.fault("content_filtered")
        if is_azure:
            found = raises(openai.BadRequestError, call, "the prompt's filter", code="content_filter")
            expect(found.body["innererror"]["code"], "ResponsibleAIPolicyViolation", "Azure's inner error")
        else:
            expect(call().choices[0].finish_reason, "content_filter", "the answer's filter")
    raises(openai.AuthenticationError, lambda: complete(stage.openai(api_key="sk-wrong")), "a wrong key",
           code="invalid_api_key")
    raises(openai.AuthenticationError, lambda: complete(stage.azure(api_key="wrong")), "a wrong key")
    unknown = {"model": "gpt-none", "messages": CHAT}
    raises(openai.NotFoundError, lambda: stage.openai().chat.completions.create(**unknown), "an unknown model",
           code="model_not_found")
    raises(openai.NotFoundError, lambda: stage.azure().chat.completions.create(**unknown), "an unknown deployment",
           code="DeploymentNotFound")
    raises(openai.BadRequestError, lambda: complete(stage.openai(), n=2), "two choices", param="n")


def openai_broken_streams(stage):
    for client in (stage.openai(), stage.azure()):
        read = lambda: list(complete(client, stream=True))
        stage.fault("stream_error", events=3)
        raises(openai.APIError, read, "an error in a stream")
        stage.fault("cut_reply", bytes=400)
        raises(openai.APIConnectionError, read, "a stream that is cut off")
        stage.fault("stream_stall", events=3)
        stalled = client.with_options(timeout=0.5)
        raises(openai.APITimeoutError, lambda: list(complete(stalled, stream=True)), "a stream that stalls")
        # A stream that merely ends looks whole to this client. That is why ours counts it as cut.
        stage.fault("short_stream", events=3)
        reasons = [chunk.choices[0].finish_reason for chunk in read() if chunk.choices]
        expect(any(reasons), False, "no reason of an end")
        stage.fault("slow_drip", chunk_bytes=700)
        assert len(read()) > 3, "a slow stream arrives"


def openai_retries(stage):
    for client in (stage.openai(max_retries=2), stage.azure(max_retries=2)):
        for kind, fields, requests, answers in [
            ("rate_limited", {"retry_after_s": 1}, 2, 1),
            ("overloaded", {}, 2, 1),
            # The work was done twice: this is what a provider bills when a client repeats blindly.
            ("drop_after_effect", {}, 2, 2),
        ]:
            before = stage.arrived()
            stage.fault(kind, **fields)
            complete(client)
            after = stage.arrived()
            expect((after[0] - before[0], after[1] - before[1]), (requests, answers), f"{kind}, repeated by the client")
        before = stage.arrived()
        stage.fault("context_exceeded")
        raises(openai.BadRequestError, lambda: complete(client), "not repeated")
        expect(stage.arrived()[0] - before[0], 1, "an invalid request is not repeated")


def anthropic_answers(stage):
    client = stage.anthropic()
    reply = message(client, **TOOL)
    expect((reply.content[0].type, reply.content[0].name), ("tool_use", "answer"), "the forced tool")
    expect(reply.content[0].input, EXPECTED, "structured output")
    expect((reply.model, reply.stop_reason, reply.role), (VERSION, "tool_use", "assistant"), "model and end")
    usage = reply.usage
    expect((usage.input_tokens, usage.output_tokens), (8, 1), "usage")
    expect((usage.cache_read_input_tokens, usage.cache_creation_input_tokens), (0, 0), "the cache's tokens")
    assert reply._request_id.startswith("req_"), "the request id reaches the client"
    plain = message(client)
    expect((plain.content[0].type, plain.stop_reason), ("text", "end_turn"), "an answer in words")
    expect(message(client, max_tokens=1).stop_reason, "max_tokens", "a cut answer")
    counted = client.messages.count_tokens(model="stand-in", system=CHAT[0]["content"], messages=CHAT[1:])
    expect(counted.input_tokens, 8, "counted tokens")
    expect([model.id for model in client.models.list()], [VERSION, "stand-in"], "models")
    stage.fault("content_filtered")
    refused = message(client)
    expect((refused.stop_reason, refused.content), ("refusal", []), "a refusal")


def anthropic_streams(stage):
    client = stage.anthropic()
    events = list(message(client, stream=True, **TOOL))
    kinds = [event.type for event in events]
    # Heartbeats are not shown by the client.
    expect((kinds[0], kinds[-2:]), ("message_start", ["message_delta", "message_stop"]), "order")
    expect(events[0].message.usage.input_tokens, 8, "input is known at the start")
    expect(events[-2].usage.output_tokens, 1, "output is known at the end")
    usual = {"model": "stand-in", "max_tokens": 100, "system": CHAT[0]["content"], "messages": CHAT[1:]}
    with client.messages.stream(**usual, **TOOL) as stream:
        final = stream.get_final_message()
    expect(final.content[0].input, EXPECTED, "accumulated by the client")
    expect((final.usage.input_tokens, final.usage.output_tokens), (8, 1), "usage, accumulated")
    with client.messages.stream(**usual) as stream:
        text = "".join(stream.text_stream)
    expect(json.loads(text)["assignment_group"], "Hardware", "text, streamed")


def anthropic_errors(stage):
    client = stage.anthropic()
    call = lambda: message(client)
    for kind, fields, error, status, name in [
        ("rate_limited", {"retry_after_s": 7}, anthropic.RateLimitError, 429, "rate_limit_error"),
        ("expired_token", {}, anthropic.AuthenticationError, 401, "authentication_error"),
        ("overloaded", {}, anthropic._exceptions.OverloadedError, 529, "overloaded_error"),
        ("context_exceeded", {}, anthropic.BadRequestError, 400, "invalid_request_error"),
        ("server_error", {"status": 500}, anthropic.InternalServerError, 500, "api_error"),
    ]:
        stage.fault(kind, **fields)
        found = raises(error, call, kind, status_code=status)
        expect(found.body["error"]["type"], name, f"{kind}: type")
        if kind == "rate_limited":
            expect(found.response.headers["retry-after"], "7", "Retry-After")
    stage.fault("drop_after_effect")
    raises(anthropic.APIConnectionError, call, "a lost reply")
    stage.fault("hang_after_effect")
    raises(anthropic.APITimeoutError, lambda: message(client.with_options(timeout=0.5)), "no reply")
    raises(anthropic.AuthenticationError, lambda: message(stage.anthropic(api_key="sk-ant-wrong")), "a wrong key")
    raises(anthropic.NotFoundError, lambda: message(client, model="claude-none"), "an unknown model")
    # The version that this client sends knows no temperature; the one before it does.
    raises(anthropic.BadRequestError, lambda: message(client, extra_body={"temperature": 0}), "a temperature")
    older = {"extra_headers": {"anthropic-version": "2023-06-01"}, "extra_body": {"temperature": 0}}
    expect(message(client, **older).stop_reason, "end_turn", "a temperature, in the older version")
    forced = {**TOOL, "tool_choice": {"type": "tool", "name": "other"}}
    raises(anthropic.BadRequestError, lambda: message(client, **forced), "a tool that is not there")


def anthropic_broken_streams(stage):
    client = stage.anthropic()
    read = lambda: list(message(client, stream=True))
    stage.fault("stream_error", events=3)
    # An error in a stream of status 200 is an exception of its own kind.
    found = raises(anthropic.APIStatusError, read, "an error in a stream")
    expect(found.body["error"]["type"], "overloaded_error", "its type")
    stage.fault("cut_reply", bytes=700)
    # In a stream this client lets the errors of its transport through as they are.
    raises(httpx2.RemoteProtocolError, read, "a stream that is cut off")
    stage.fault("stream_stall", events=3)
    stalled = client.with_options(timeout=0.5)
    raises(httpx2.ReadTimeout, lambda: list(message(stalled, stream=True)), "a stream that stalls")
    stage.fault("short_stream", events=4)
    expect("message_stop" in [event.type for event in read()], False, "a stream that merely ends")


def anthropic_retries(stage):
    client = stage.anthropic(max_retries=2)
    for kind, fields, requests, answers in [
        ("rate_limited", {"retry_after_s": 1}, 2, 1),
        ("overloaded", {}, 2, 1),
        ("drop_after_effect", {}, 2, 2),
    ]:
        before = stage.arrived()
        stage.fault(kind, **fields)
        message(client)
        after = stage.arrived()
        expect((after[0] - before[0], after[1] - before[1]), (requests, answers), f"{kind}, repeated by the client")


CHECKS = [
    openai_answers, openai_streams, openai_errors, openai_broken_streams, openai_retries,
    anthropic_answers, anthropic_streams, anthropic_errors, anthropic_broken_streams, anthropic_retries,
]


if __name__ == "__main__":
    (serve,) = suite.arguments(1)
    with Stage.started(serve) as stage:
        suite.run(CHECKS, stage, after=stage.calm)

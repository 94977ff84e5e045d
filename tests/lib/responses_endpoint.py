#!/usr/bin/env python3
"""A scripted, OpenAI-compatible Responses endpoint on loopback, for tests and the demo.

It has no memory of a conversation: it answers from the history that each request carries, so a
lost history gives a visibly wrong answer. "What state is it in?" is "California" only if an
earlier message names San Francisco; otherwise it does not know which city is meant. The input
of a request is checked as the real API checks it (every output has its call, every call its
output, no id twice, …), so a torn history gives status 400 and the reason.

Ids are derived from the request: the same history gets the same answer, byte for byte, which
lets a test compare two runs.

What can be asked is written in ANSWERS. Lines of the newest user message that begin with "call"
are a script of tool calls: one line for each model turn, " & " between parallel calls:

    call get_weather {"city": "Paris"} & get_weather {"city": "Rome"}
    call transfer_to_geographer {}

When all of them have their outputs, the answer is the outputs, or what the message asks besides.

Run it: responses_endpoint.py --port-file FILE   (FILE appears, complete, once it listens)
Use it: with ResponsesEndpoint() as endpoint: AsyncOpenAI(base_url=endpoint.base_url, …)

A test steers it through `outcomes` (which requests fail) and `hold_streams`; another process
does the same with POST /script {"outcomes": [null, 500], "hold": true}. Nothing but the standard
library is needed.
"""

from __future__ import annotations

import argparse
import base64
import collections
import hashlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

MAX_BODY = 64 << 20
MAX_STORED_RESPONSES = 1000
HOLD_SECONDS = 60
CREATED_AT = 1_700_000_000

Item = dict[str, Any]


class ApiError(Exception):
    """What the endpoint refuses, with the status and the error object of the real API."""

    def __init__(self, status: int, message: str, param: str | None = None):
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message,
                "type": "invalid_request_error" if status < 500 else "server_error",
                "param": param,
                "code": None,
            }
        }


# --- what the model knows ---------------------------------------------------------------------


class Message(NamedTuple):
    role: str
    text: str


STATE_OF_CITY = {"San Francisco": "California", "Chicago": "Illinois", "Austin": "Texas"}
POPULATION = {
    "California": "Approximately 39 million",
    "Illinois": "Approximately 13 million",
    "Texas": "Approximately 31 million",
    "San Francisco": "Approximately 800 thousand",
}
BRIDGES = {"Golden Gate Bridge": "The Golden Gate Bridge"}


def latest_mention(earlier: list[Message], table: dict[str, str]) -> str | None:
    """What the table holds for the name that was mentioned last."""
    for message in reversed(earlier):
        places = [(message.text.rfind(name), name) for name in table if name in message.text]
        if places:
            return table[max(places)[1]]
    return None


def sum_answer(match: re.Match[str], earlier: list[Message]) -> str:
    """The sum, and any other sum that the history still holds."""
    answer = str(int(match[1]) + int(match[2]))
    before = [m[0] for e in earlier if (m := SUM.search(e.text)) and e.role == "user"]
    return f"{answer} (and you asked {before[-1]} before)" if before else answer


def greeting(_match: re.Match[str], earlier: list[Message]) -> str:
    greeted = any(m.role == "user" and m.text.lower().startswith("hello") for m in earlier)
    return "Hello again!" if greeted else "Hello! How can I help?"


SUM = re.compile(r"(\d+) \+ (\d+)")

# Question, and how it is answered from the messages before it. The first that fits is taken.
ANSWERS: list[tuple[re.Pattern[str], Callable[[re.Match[str], list[Message]], str]]] = [
    (re.compile(r"what city is the golden gate bridge in", re.I), lambda m, e: "San Francisco"),
    (
        re.compile(r"what state is it in", re.I),
        lambda m, e: latest_mention(e, STATE_OF_CITY) or "I do not know which city you mean",
    ),
    (
        re.compile(r"what('s| is) the population", re.I),
        lambda m, e: latest_mention(e, POPULATION) or "I do not know which place you mean",
    ),
    (
        re.compile(r"which bridge", re.I),
        lambda m, e: latest_mention(e, BRIDGES) or "I do not know which bridge you mean",
    ),
    (SUM, sum_answer),
    (re.compile(r"^hello", re.I), greeting),
]


def answer(question: str, earlier: list[Message]) -> str:
    for pattern, reply in ANSWERS:
        if match := pattern.search(question):
            return reply(match, earlier)
    return f"I have read {len(earlier)} earlier messages and then: {question[:200]}"


# --- what it does with a history --------------------------------------------------------------


def text_of(content: Any) -> str:
    """The text of a message's content or of a tool's output: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if "text" in part)


def seal(messages: list[Message]) -> str:
    """What a compaction item carries: here readable, at the real API encrypted."""
    return base64.b64encode(json.dumps(messages).encode()).decode()


def unseal(sealed: str) -> list[Message]:
    try:
        return [Message(role, text) for role, text in json.loads(base64.b64decode(sealed))]
    except ValueError as error:
        raise ApiError(400, "The encrypted content could not be verified.", "input") from error


def messages_of(items: list[Item]) -> list[Message]:
    messages: list[Message] = []
    for item in items:
        if kind_of(item) == "message":
            messages.append(Message(item["role"], text_of(item["content"])))
        elif item["type"] == "compaction":
            messages += unseal(item["encrypted_content"])
    return messages


class Call(NamedTuple):
    name: str
    arguments: str


def scripted_rounds(question: str) -> list[list[Call]]:
    """The calls that the lines of a message order: one list for each model turn."""
    rounds = []
    for line in question.splitlines():
        if line.startswith("call "):
            calls = [call.partition(" ") for call in line.removeprefix("call ").split(" & ")]
            rounds.append([Call(name, arguments) for name, _, arguments in calls])
    return rounds


def next_step(items: list[Item]) -> list[Call] | str:
    """What the model does next: the calls that are still to be made, or its answer."""
    asked = [i for i, item in enumerate(items) if item.get("role") == "user"]
    newest = asked[-1] if asked else 0
    question = text_of(items[newest].get("content", ""))
    later = items[newest + 1 :]
    n_made = sum(item.get("type") == "function_call" for item in later)
    for calls in scripted_rounds(question):
        if n_made < len(calls):
            return calls
        n_made -= len(calls)

    besides = "\n".join(x for x in question.splitlines() if not x.startswith("call "))
    outputs = [text_of(x["output"]) for x in later if x.get("type") == "function_call_output"]
    if besides or not outputs:
        return answer(besides, messages_of(items[:newest]))
    return "; ".join(outputs)


# --- is the input what the real API accepts? --------------------------------------------------


class Shape(NamedTuple):
    id_prefix: str
    required: set[str]
    optional: set[str]


SHAPES = {
    "message": Shape("msg", {"role", "content"}, {"type", "id", "status", "phase"}),
    "function_call": Shape(
        "fc", {"type", "call_id", "name", "arguments"}, {"id", "status", "namespace", "caller"}
    ),
    "function_call_output": Shape("fc", {"type", "call_id", "output"}, {"id", "status", "caller"}),
    "reasoning": Shape(
        "rs", {"type", "id", "summary"}, {"content", "encrypted_content", "status"}
    ),
    "compaction": Shape("cmp", {"type", "encrypted_content"}, {"id", "created_by"}),
}
PARTS_OF_ROLE = {
    "user": {"input_text", "input_image", "input_file"},
    "system": {"input_text"},
    "developer": {"input_text"},
    "assistant": {"output_text", "refusal"},
}


def kind_of(item: Item) -> str:
    return item.get("type") or ("message" if "role" in item else "")


def check_item(item: Any, param: str) -> None:
    if not isinstance(item, dict):
        raise ApiError(400, f"Invalid type for '{param}': expected an object.", param)
    shape = SHAPES.get(kind_of(item))
    if shape is None:
        supported = ", ".join(f"'{kind}'" for kind in SHAPES)
        raise ApiError(
            400,
            f"Invalid value: '{item.get('type', '')}'. Supported values are: {supported}.",
            param,
        )
    for field in sorted(shape.required - item.keys()):
        raise ApiError(400, f"Missing required parameter: '{param}.{field}'.", param)
    for field in sorted(item.keys() - shape.required - shape.optional):
        raise ApiError(400, f"Unknown parameter: '{param}.{field}'.", param)
    if "id" in item and not str(item["id"]).startswith(shape.id_prefix):
        raise ApiError(
            400,
            f"Invalid '{param}.id': '{item['id']}'. "
            f"Expected an ID that begins with '{shape.id_prefix}'.",
            param,
        )
    if kind_of(item) == "message":
        check_content(item, param)
    if not isinstance(item.get("output", ""), str | list):
        raise ApiError(400, f"Invalid type for '{param}.output'.", param)


def check_content(message: Item, param: str) -> None:
    parts = PARTS_OF_ROLE.get(message["role"])
    if parts is None:
        raise ApiError(400, f"Invalid value: '{message['role']}' for '{param}.role'.", param)
    content = message["content"]
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise ApiError(400, f"Invalid type for '{param}.content'.", param)
    for i, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") not in parts:
            raise ApiError(
                400,
                f"Invalid value in '{param}.content[{i}]'. "
                f"Supported values are: {', '.join(sorted(parts))}.",
                param,
            )


def check_pairs(items: list[Item]) -> None:
    """Every call has its output after it, every output its call before it, no id comes twice."""
    ids: set[str] = set()
    open_calls: set[str] = set()
    closed_calls: set[str] = set()
    for i, item in enumerate(items):
        if item.get("id") in ids:
            raise ApiError(400, f"Duplicate item found with id {item['id']}.", "input")
        ids |= {item["id"]} if "id" in item else set()
        kind = kind_of(item)
        if kind == "function_call":
            open_calls.add(item["call_id"])
        elif kind == "function_call_output":
            call_id = item["call_id"]
            if call_id not in open_calls:
                problem = "Duplicate output" if call_id in closed_calls else "No tool call found"
                raise ApiError(
                    400, f"{problem} for function call output with call_id {call_id}.", "input"
                )
            open_calls.remove(call_id)
            closed_calls.add(call_id)
        elif kind == "reasoning":
            check_reasoning_is_followed(items, i)
    for call_id in sorted(open_calls):
        raise ApiError(400, f"No tool output found for function call {call_id}.", "input")


def check_reasoning_is_followed(items: list[Item], i: int) -> None:
    follower = items[i + 1] if i + 1 < len(items) else {}
    if kind_of(follower) == "function_call" or follower.get("role") == "assistant":
        return
    raise ApiError(
        400,
        f"Item '{items[i]['id']}' of type 'reasoning' was provided "
        "without its required following item.",
        "input",
    )


def checked_input(body: Item) -> list[Item]:
    """The request's input as a list of items, or the refusal that the real API would give."""
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items:
        raise ApiError(400, "Missing required parameter: 'input'.", "input")
    for i, item in enumerate(items):
        check_item(item, f"input[{i}]")
    return items


# --- responses --------------------------------------------------------------------------------


def digest_of(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:48]


def reasoning_item(body: Item, digest: str) -> Item | None:
    effort = (body.get("reasoning") or {}).get("effort")
    if effort in (None, "none"):
        return None
    item: Item = {
        "id": f"rs_{digest}",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "I look at the history."}],
    }
    if "reasoning.encrypted_content" in (body.get("include") or []):
        item["encrypted_content"] = f"sealed-{digest}"
    return item


def call_items(calls: list[Call], body: Item, digest: str) -> list[Item]:
    offered = {tool.get("name") for tool in body.get("tools") or []}
    for call in calls:
        if call.name not in offered:
            raise ApiError(400, f"The script calls {call.name}, which is not offered.", "tools")
    return [
        {
            "id": f"fc_{digest}{i:02d}",
            "type": "function_call",
            "call_id": f"call_{digest[:22]}{i:02d}",
            "name": call.name,
            "arguments": call.arguments,
            "status": "completed",
        }
        for i, call in enumerate(calls)
    ]


def message_item(text: str, digest: str) -> Item:
    return {
        "id": f"msg_{digest}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
    }


def output_items(body: Item, items: list[Item], digest: str) -> list[Item]:
    step = next_step(items)
    if isinstance(step, str):
        output = [message_item(step, digest)]
    else:
        output = call_items(step, body, digest)
    thought = reasoning_item(body, digest)
    return [thought, *output] if thought else output


def usage(items: list[Item], output: list[Item]) -> Item:
    """Plausible numbers: a token for every four bytes of JSON."""
    n_in, n_out = (len(json.dumps(x)) // 4 for x in (items, output))
    return {
        "input_tokens": n_in,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": n_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": n_in + n_out,
    }


def response_object(body: Item, items: list[Item]) -> Item:
    digest = digest_of(body.get("model"), body.get("instructions"), items)
    output = output_items(body, items, digest)
    return {
        "id": f"resp_{digest}",
        "object": "response",
        "created_at": CREATED_AT,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "model": body["model"],
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "temperature": 1.0,
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage(items, output),
    }


def compaction_object(items: list[Item]) -> Item:
    """All user messages stay, everything else goes into one sealed item: as the real API does."""
    digest = digest_of("compaction", items)
    kept = [item for item in items if item.get("role") == "user"]
    users = [
        {
            "id": f"msg_{digest}{i:02d}",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": text_of(item["content"])}],
        }
        for i, item in enumerate(kept)
    ]
    others = [message for message in messages_of(items) if message.role != "user"]
    sealed = {"id": f"cmp_{digest}", "type": "compaction", "encrypted_content": seal(others)}
    output = [*users, sealed]
    return {
        "id": f"resp_{digest}",
        "object": "response.compaction",
        "created_at": CREATED_AT,
        "output": output,
        "usage": usage(items, output),
    }


# --- a response as a stream of events ---------------------------------------------------------


def message_events(item: Item) -> Iterator[Item]:
    part = item["content"][0]
    empty = {**part, "text": ""}
    where = {"item_id": item["id"], "content_index": 0}
    yield {"type": "response.content_part.added", **where, "part": empty}
    for word in re.findall(r"\S+\s*", part["text"]):
        yield {"type": "response.output_text.delta", **where, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **where, "part": part}


def call_events(item: Item) -> Iterator[Item]:
    name, arguments = "response.function_call_arguments", item["arguments"]
    yield {"type": f"{name}.delta", "item_id": item["id"], "delta": arguments}
    yield {"type": f"{name}.done", "item_id": item["id"], "arguments": arguments}


def reasoning_events(item: Item) -> Iterator[Item]:
    where = {"item_id": item["id"], "summary_index": 0}
    for part in item["summary"]:
        name, text = "response.reasoning_summary", part["text"]
        yield {"type": f"{name}_part.added", **where, "part": {**part, "text": ""}}
        yield {"type": f"{name}_text.delta", **where, "delta": text}
        yield {"type": f"{name}_text.done", **where, "text": text}
        yield {"type": f"{name}_part.done", **where, "part": part}


# What an item looks like before its events have filled it, and these events.
STREAMED: dict[str, tuple[Item, Callable[[Item], Iterator[Item]]]] = {
    "message": ({"content": [], "status": "in_progress"}, message_events),
    "function_call": ({"arguments": "", "status": "in_progress"}, call_events),
    "reasoning": ({"summary": []}, reasoning_events),
}


def stream_events(response: Item) -> Iterator[Item]:
    unfinished = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": unfinished}
    yield {"type": "response.in_progress", "response": unfinished}
    for index, item in enumerate(response["output"]):
        empty, events = STREAMED[item["type"]]
        where = {"output_index": index}
        yield {"type": "response.output_item.added", **where, "item": {**item, **empty}}
        for event in events(item):
            yield {**event, **where}
        yield {"type": "response.output_item.done", **where, "item": item}
    yield {"type": "response.completed", "response": response}


# --- the server -------------------------------------------------------------------------------


class ResponsesEndpoint:
    """The endpoint on a port of its own, served by threads of this process.

    outcomes   what becomes of the next requests, in order: a status to fail with, or None to
               let one pass. When it is empty, everything passes.
    requests   the paths and bodies that were received, refused ones included
    """

    def __init__(self) -> None:
        self.outcomes: collections.deque[int | None] = collections.deque()
        self.requests: list[tuple[str, Item]] = []
        self._stored: collections.OrderedDict[str, list[Item]] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._streams_may_go_on = threading.Event()
        self._streams_may_go_on.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.release_streams()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> ResponsesEndpoint:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def hold_streams(self) -> None:
        """From now on a stream stops after its first delta, until release_streams."""
        self._streams_may_go_on.clear()

    def release_streams(self) -> None:
        self._streams_may_go_on.set()

    def await_release(self) -> None:
        if not self._streams_may_go_on.wait(HOLD_SECONDS):
            raise TimeoutError("a held stream was never released")

    def answer(self, path: str, body: Item) -> Item:
        """The answer to a request; ApiError if it is refused or was told to fail."""
        with self._lock:
            self.requests.append((path, body))
            status = self.outcomes.popleft() if self.outcomes else None
        if status is not None:
            raise ApiError(status, "The endpoint was told to fail.")
        if not isinstance(body.get("model"), str):
            raise ApiError(400, "Missing required parameter: 'model'.", "model")
        return self._respond(body) if path == "/v1/responses" else self._compact(body)

    def _respond(self, body: Item) -> Item:
        items = self._earlier(body) + checked_input(body)
        check_pairs(items)
        response = response_object(body, items)
        if body.get("store") is not False:
            self._store(response["id"], items + response["output"])
        return response

    def _compact(self, body: Item) -> Item:
        items = self._earlier(body)
        if "input" in body:
            items = items + checked_input(body)
        check_pairs(items)
        return compaction_object(items)

    def _earlier(self, body: Item) -> list[Item]:
        response_id = body.get("previous_response_id")
        if response_id is None:
            return []
        with self._lock:
            items = self._stored.get(response_id)
        if items is None:
            raise ApiError(
                400,
                f"Previous response with id '{response_id}' not found.",
                "previous_response_id",
            )
        return items

    def _store(self, response_id: str, items: list[Item]) -> None:
        with self._lock:
            self._stored[response_id] = items
            while len(self._stored) > MAX_STORED_RESPONSES:
                self._stored.popitem(last=False)

    def follow_script(self, body: Item) -> Item:
        """Another process steers the endpoint; the answer says how many requests there were."""
        self.outcomes.extend(body.get("outcomes", []))
        if "hold" in body:
            (self.hold_streams if body["hold"] else self.release_streams)()
        return {"requests": len(self.requests)}


def handler_of(endpoint: ResponsesEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # HTTP/1.0 closes after each answer: a client that lives through several event loops, as
        # run_sync between awaits, keeps no connection that belongs to a loop that is gone.
        protocol_version = "HTTP/1.0"

        def do_POST(self) -> None:  # noqa: N802 (the name that http.server calls)
            try:
                self._answer()
            except ApiError as error:
                self._send_json(error.status, error.body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _answer(self) -> None:
            body = self._read_body()
            if self.path == "/script":
                self._send_json(200, endpoint.follow_script(body))
                return
            if self.path not in ("/v1/responses", "/v1/responses/compact"):
                raise ApiError(404, f"Invalid URL (POST {self.path})")
            scheme, _, key = self.headers.get("Authorization", "").partition(" ")
            if scheme != "Bearer" or not key:
                raise ApiError(401, "You didn't provide an API key.")
            response = endpoint.answer(self.path, body)
            if body.get("stream"):
                self._send_stream(response)
            else:
                self._send_json(200, response)

        def _read_body(self) -> Item:
            try:
                length = int(self.headers.get("Content-Length", ""))
            except ValueError:
                raise ApiError(411, "A Content-Length is required.") from None
            if not 0 <= length <= MAX_BODY:
                raise ApiError(413, f"A body has at most {MAX_BODY} bytes.")
            try:
                body = json.loads(self.rfile.read(length))
            except ValueError as error:
                raise ApiError(400, f"We could not parse the JSON body: {error}") from error
            if not isinstance(body, dict):
                raise ApiError(400, "The body must be a JSON object.")
            return body

        def _send_json(self, status: int, body: Item) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _send_stream(self, response: Item) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            held = False
            for number, event in enumerate(stream_events(response)):
                data = json.dumps({**event, "sequence_number": number})
                self.wfile.write(f"event: {event['type']}\ndata: {data}\n\n".encode())
                self.wfile.flush()
                if event["type"].endswith(".delta") and not held:
                    held = True
                    endpoint.await_release()

        def log_message(self, format: str, *args: Any) -> None:
            """Tests read `requests`; nothing is printed."""

    return Handler


def write_port_file(path: str, port: int) -> None:
    """The file appears in one step, so whoever waits for it never reads half of it."""
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(f"{port}\n")
    os.rename(f"{path}.new", path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port-file", required=True, help="where the port is written")
    options = parser.parse_args()

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ResponsesEndpoint() as endpoint:
        write_port_file(options.port_file, endpoint.port)
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Every route with every verb is guarded: who may ask, from where, with what; and no request brings the server down."""

import asyncio
import json
import os
import random
import re

import pytest
from served import POLICY, TOKEN, asking, make_run, post

from windtunnel.serve.app import create_app
from windtunnel.serve.safety import HEADERS, LARGEST_BODY, READING, Policy, is_loopback
from windtunnel.text.tokenizers import bytes_tokenizer

VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
READ, POST = frozenset({"GET", "HEAD"}), frozenset({"POST"})
API = {
    "/health": READ,
    "/v1/models": READ,
    "/v1/models/{name:path}": READ,
    "/v1/completions": POST,
    "/v1/chat/completions": POST,
    "/tokenizer_info": READ,
    "/tokenize": POST,
    "/detokenize": POST,
}
OPEN_POSTS = {path for path, verbs in API.items() if "POST" in verbs}
"""These compute and change nothing, so they need no token on this machine."""
PAGE = {
    **dict.fromkeys(("/", "/static/{name}", "/page/runs", "/page/curves", "/page/curves.csv", "/page/about"), READ),
    **dict.fromkeys(("/page/results", "/page/artefact/{id}/{entry}", "/page/experiments", "/page/job"), READ),
    **dict.fromkeys(("/page/experiments/start", "/page/check", "/page/job/stop"), POST),
    **dict.fromkeys(("/page/look", "/page/again", "/page/attention", "/page/lens"), POST),
}
KNOWN = {**API, **PAGE}
"""What each route answers to."""
PUBLIC = {"/", "/static/x"}
"""What shows no data, and may be read without the token."""
STARTS = {"/page/experiments/start", "/page/check"}
"""What starts a process: no test sends hostile requests there with the token."""


def routes(root):
    return {route.path: route for route in create_app(root, POLICY).routes}


def filled(path):
    """A path with something in place of its parameters."""
    return re.sub(r"{name:path}", "names/seed-0", re.sub(r"{[a-z]+}", "x", path))


def own(root):
    """Paths to ask, one of every route."""
    return [filled(path) for path in routes(root)]


def every(root, policy, method, path, **request):
    """The answer of a new application to one request."""

    async def run():
        async with asking(root, policy) as client:
            return await client.request(method, path, **request)

    return asyncio.run(run())


def several(root, policy, requests):
    """The answers of one application to (method, path, what else)."""

    async def run():
        async with asking(root, policy) as client:
            return [await client.request(method, path, **more) for method, path, more in requests]

    return asyncio.run(run())


JSON = {"Content-Type": "application/json"}


def test_every_route_is_in_the_table(root):
    found = routes(root)
    assert not set(found) - set(KNOWN), "say in this table which verbs these answer to, and guard them"
    assert {path: KNOWN[path] for path in found} == {path: route.methods for path, route in found.items()}


def test_no_other_verb_is_answered(root):
    given = {"headers": {**JSON, "Authorization": f"Bearer {TOKEN}"}, "content": "{}"}
    wrong = [(verb, path) for path in routes(root) for verb in VERBS if verb not in KNOWN[path]]
    asked = [(verb, filled(path), given) for verb, path in wrong]
    assert {answer.status_code for answer in several(root, POLICY, asked)} == {405}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "user@localhost"}, 421),
        ({"Host": "["}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://localhost@evil.example"}, 403),
    ],
)
def test_a_foreign_host_or_page_is_refused_at_every_route_with_every_verb(root, headers, status):
    asked = [(verb, path, {"headers": {**JSON, **headers}}) for path in [*own(root), "/nothing"] for verb in VERBS]
    for (verb, path, _), answer in zip(asked, several(root, POLICY, asked), strict=True):
        assert answer.status_code == status, (verb, path)


def test_own_names_and_the_own_page_are_answered(root):
    for headers in ({"Host": "[::1]:8000"}, {"Host": "127.0.0.1"}, {"Host": "LOCALHOST:9"}):
        assert every(root, POLICY, "GET", "/health", headers=headers).status_code == 200
    headers = {**JSON, "Host": "localhost:9", "Origin": "http://localhost:9"}
    body = json.dumps({"prompt": "a", "model": "names"})
    assert every(root, POLICY, "POST", "/tokenize", headers=headers, content=body).status_code == 200


@pytest.mark.parametrize("given", [None, "", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ü", TOKEN])
def test_what_needs_the_token_is_refused_without_it(root, given):
    headers = JSON if given is None else {**JSON, "Authorization": given.encode("latin-1")}
    strict = Policy(POLICY.hosts, TOKEN, always=True)
    paths = [(verb, path) for path in [*own(root), "/nothing"] for verb in VERBS]
    asked = [(*one, {"headers": headers}) for one in paths if one[0] not in READING or one[1] not in PUBLIC]
    assert {answer.status_code for answer in several(root, strict, asked)} == {401}
    changing = [(verb, "/page/anything", {"headers": headers}) for verb in VERBS if verb not in READING]
    assert {answer.status_code for answer in several(root, POLICY, changing)} == {401}


def test_with_the_token_it_is_answered(root):
    strict = Policy(POLICY.hosts, TOKEN, always=True)
    headers = {"Authorization": f"bearer {TOKEN}"}
    assert every(root, strict, "GET", "/health", headers=headers).status_code == 200


def test_behind_a_proxys_prefix_the_same_needs_the_token(root):
    """uvicorn puts the prefix in front of the path: what is below /page/ must still be seen to be."""

    async def run():
        app, answers = create_app(root, POLICY), []
        scope = {
            "type": "http", "method": "POST", "path": "/models/page/x", "raw_path": b"/models/page/x",
            "root_path": "/models", "query_string": b"", "scheme": "http", "app": app,
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }  # fmt: skip

        async def receive():
            return {"type": "http.request", "body": b"{}"}

        async def send(message):
            answers.append(message)

        await app(scope, receive, send)
        return answers[0]["status"]

    assert asyncio.run(run()) == 401


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_body_must_be_json(root, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    asked = [("POST", path, {"headers": headers, "content": "{}"}) for path in OPEN_POSTS]
    assert {answer.status_code for answer in several(root, POLICY, asked)} == {415}


def test_a_large_body_is_refused_with_and_without_a_length(root):
    async def chunks():
        for _ in range(LARGEST_BODY // 1024 + 2):
            yield b" " * 1024

    asked = [("POST", path, {"headers": JSON, "content": b" " * (LARGEST_BODY + 1)}) for path in OPEN_POSTS]
    assert {answer.status_code for answer in several(root, POLICY, asked)} == {413}
    asked = [("POST", path, {"headers": JSON, "content": chunks()}) for path in OPEN_POSTS]
    assert {answer.status_code for answer in several(root, POLICY, asked)} == {413}
    lies = [("POST", path, {"headers": {**JSON, "Content-Length": "9" * 400}, "content": "{}"}) for path in OPEN_POSTS]
    assert {answer.status_code for answer in several(root, POLICY, lies)} == {413}


def test_every_answer_has_a_strict_policy_and_lets_no_other_page_read_it(root, monkeypatch):
    async def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("windtunnel.serve.worker.Worker.run", fail)
    asked = [
        *((verb, path, {"headers": JSON, "content": "{}"}) for path in [*own(root), "/nothing"] for verb in VERBS),
        ("GET", "/health", {"headers": {"Host": "evil"}}),
        ("POST", "/tokenize", {"headers": JSON, "content": '{"prompt": "a"}'}),
        ("POST", "/v1/completions", {"headers": JSON, "content": "no"}),
        ("POST", "/v1/completions", {"headers": JSON, "content": b" " * (LARGEST_BODY + 1)}),
    ]
    statuses = set()
    for answer in several(root, POLICY, asked):
        statuses.add(answer.status_code)
        assert answer.headers["content-security-policy"].startswith(("default-src 'none'", "sandbox"))
        for name in ("x-content-type-options", "referrer-policy", "cross-origin-resource-policy"):
            assert answer.headers[name] == HEADERS[{k.lower(): k for k in HEADERS}[name]]
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert {200, 400, 404, 405, 413, 421, 500} <= statuses


def test_a_name_is_never_a_path(root):
    names = ["../names", "/etc", "names/../prose", "names/seed-0/step-0", ".", "", "names/", "~", "prose\0", "a" * 1024]
    asked = [
        ("POST", "/tokenize", {"headers": JSON, "content": json.dumps({"prompt": "a", "model": n})}) for n in names
    ]
    assert {answer.status_code for answer in several(root, POLICY, asked)} == {404}


def test_a_folder_whose_name_is_not_utf8_is_a_name_like_any_other(tmp_path):
    try:
        make_run(tmp_path / os.fsdecode(b"n\xff"), bytes_tokenizer(end=True))
    except OSError:
        pytest.skip("this file system has no such names")
    [listed, answered] = several(
        tmp_path,
        POLICY,
        [
            ("GET", "/v1/models", {}),
            ("POST", "/v1/completions", {"headers": JSON, "content": json.dumps({"model": "n\udcff", "prompt": "a"})}),
        ],
    )
    assert listed.json()["data"][0]["id"] == answered.json()["model"] == "n\udcff"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("localhost.evil.example", False), ("", False)],
)  # fmt: skip
def test_only_this_machine_reaches_a_loopback_address(host, expected):
    assert is_loopback(host) == expected


class Hostile:
    """Requests that mean no good, by a seeded generator."""

    def __init__(self, seed):
        self.draw = random.Random(seed)

    def value(self, depth=0):
        """Anything that JSON can say."""
        draw = self.draw
        kinds = [
            lambda: None, lambda: True, lambda: draw.choice([0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400]),
            lambda: draw.choice([0.0, -0.5, 1e308, float("nan"), float("inf"), 1e-320]),
            self.text, lambda: draw.choice(["names", "prose", "mlp", "pairs", "talk", "last"]),
        ]  # fmt: skip
        if depth < 3:
            kinds.append(lambda: [self.value(depth + 1) for _ in range(draw.randrange(5))])
            kinds.append(lambda: {self.text()[:20]: self.value(depth + 1) for _ in range(draw.randrange(4))})
        return draw.choice(kinds)()

    def text(self):
        draw = self.draw
        pieces = [
            "a", "mar", "\0", "\ud800", "\udfff", "<|im_end|>", "<|endoftext|>", "../", "%00", "\n", "{{7*7}}", "é",
            "\U0001f600", "<script>", "' OR 1=1", "\u202e", "x" * draw.choice([1, 40, 3000]), "none", "null",
        ]  # fmt: skip
        return "".join(draw.choice(pieces) for _ in range(draw.randrange(5)))

    def body(self):
        draw = self.draw
        good = {
            "model": draw.choice(["names", "prose", "mlp", "talk", "pairs", "last"]),
            "prompt": draw.choice(["a", "mar", [1, 2, 3], [[1], [2, 3]], ["a", "b"], "ab" * 20]),
            "max_tokens": draw.choice([0, 1, 2, 7]), "logprobs": draw.choice([None, 0, 1, 20]),
            "echo": draw.random() < 0.3, "stream": draw.random() < 0.3, "n": draw.choice([1, 1, 2, 5]),
            "temperature": draw.choice([0, 1, 1e-300, 100]), "top_p": draw.choice([1, 0.5, 1e-12]),
            "seed": draw.choice([None, 0, -5, 2**63 - 1]), "stop": draw.choice([None, "a", ["b", "c"]]),
            "messages": [{"role": "user", "content": "hi"}], "tokens": draw.choice([[1], [], [26], [9999]]),
        }  # fmt: skip
        for _ in range(draw.randrange(4)):
            good[draw.choice([*good, "best_of", "logit_bias", "tools", self.text()])] = self.value()
        return good

    def content(self):
        """Bytes that are a body, or nearly one."""
        draw = self.draw
        text = json.dumps(self.body() if draw.random() < 0.85 else self.value()).encode()
        broken = [
            lambda: text[: draw.randrange(len(text) + 1)], lambda: b"[" * draw.choice([10, 100_000]), lambda: b"",
            lambda: bytes(draw.randrange(256) for _ in range(40)), lambda: b'{"a":' * 50_000,
            lambda: b"\xff\xfe" + text, lambda: b"9" * 10_000,
        ]  # fmt: skip
        return draw.choice(broken)() if draw.random() < 0.1 else text

    def request(self, paths):
        draw = self.draw
        headers = dict(JSON)
        if draw.random() < 0.1:
            name = draw.choice(["Host", "Origin", "Content-Type", "Authorization", "Content-Length", "Accept", "X-A"])
            headers[name] = draw.choice(
                ["localhost", "a b", "é", "[", "http://[", "-1", "1e9", "\t", "9" * 5000, "Bearer"]
            )
        path = draw.choice(paths)
        method = "POST" if "POST" in KNOWN.get(path, ()) else "GET"
        if draw.random() < 0.1:
            method = draw.choice(VERBS)
        if draw.random() < 0.5:
            headers["Authorization"] = f"Bearer {TOKEN}"
        if draw.random() < 0.1:
            path += draw.choice(
                ["/", "/..", "%00", "%2e%2e/", "?model=names", "?model=%ff", "?model=" + "a" * 3000, "//x"]
            )
        return method, path, {"headers": {k: v.encode() for k, v in headers.items()}, "content": self.content()}


def survives(root, seeds):
    """Send a hostile request of each seed, many at a time; afterwards the worker still answers."""

    async def run():
        async with asking(root) as client:
            paths = [filled(path) for path in routes(root) if path not in STARTS]
            paths += [path for path in paths if path in OPEN_POSTS] * 3
            asked = [Hostile(seed).request(paths) for seed in seeds]
            limit = asyncio.Semaphore(32)

            async def one(method, path, more):
                async with limit:
                    return (await client.request(method, path, **more)).status_code

            statuses = await asyncio.gather(*(one(*request) for request in asked))
            alive = await post(client, "/v1/completions", {"model": "names", "prompt": "a"})
            taken = (await client.get("/health")).json()["taken"]
            return statuses, alive.status_code, taken

    statuses, alive, taken = asyncio.run(run())
    wrong = [seed for seed, status in zip(seeds, statuses, strict=True) if status >= 500]
    assert not wrong, f"a 5xx for the requests of the seeds {wrong[:20]}"
    assert (alive, taken) == (200, 0)
    return statuses


def test_hostile_requests_do_no_harm(root):
    statuses = survives(root, range(300))
    assert {200, 400, 404, 405} <= set(statuses)


@pytest.mark.slow
def test_five_thousand_hostile_requests_do_no_harm(root):
    survives(root, range(1000, 6000))

"""`windtunnel serve` as its user meets it: a process that says where it is, and ends when it has answered everybody."""

import json
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest

from patience import PATIENCE, wait_for
from windtunnel import cli
from windtunnel.errors import ConfigError
from windtunnel.serve.serving import listening, serve


@contextmanager
def process(root, *words):
    """A server of its own: the process, and what it said first."""
    command = [sys.executable, "-m", "windtunnel", "serve", str(root), "--port", "0", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as made:
        try:
            said = dict(line.split(maxsplit=1) for line in (made.stdout.readline() for _ in range(3)))
            yield made, {name.rstrip(":"): value.strip() for name, value in said.items()}
        finally:
            made.kill()


def get(url, **more):
    return httpx.get(url, timeout=PATIENCE, **more)


@pytest.mark.parametrize("asked_to_stop", [signal.SIGTERM, signal.SIGINT])
def test_when_asked_to_stop_it_finishes_its_streams_and_exits_with_zero(root, asked_to_stop):
    body = {"model": "prose", "prompt": "a", "max_tokens": 400, "seed": 1, "stream": True}
    with process(root) as (made, said):
        with httpx.stream("POST", f"{said['API']}/completions", json=body, timeout=PATIENCE) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            made.send_signal(asked_to_stop)
            rest = [line for line in lines if line]
        assert first.startswith("data: {")
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        out, err = made.communicate(timeout=PATIENCE)
        assert (made.returncode, out, err) == (0, "", "")


def test_clients_that_break_off_are_not_news(root):
    body = json.dumps({"model": "prose", "prompt": "a", "max_tokens": 4096, "stream": True, "n": 4})
    with process(root) as (made, said):
        port = int(said["API"].split(":")[2].removesuffix("/v1"))
        for k in range(60):
            with socket.create_connection(("127.0.0.1", port)) as client:
                about = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
                client.sendall(f"POST /v1/completions HTTP/1.1\r\n{about}\r\n\r\n{body}".encode())
                if k % 2:
                    client.recv(100)
        wait_for(lambda: get(said["page"] + "health").json()["taken"] == 0)
        made.send_signal(signal.SIGTERM)
        assert (made.wait(timeout=PATIENCE), made.stderr.read()) == (0, "")


def test_another_host_wants_the_token_of_every_request(root):
    with process(root, "--host", "0.0.0.0", "--token", "given-token", "--allow-host", "model.example") as (_, said):
        assert said["token"] == "given-token (every request needs it)"
        port = said["API"].split(":")[2].removesuffix("/v1")
        url = f"http://127.0.0.1:{port}/v1/models"
        assert get(url).status_code == 401
        token = {"Authorization": "Bearer given-token"}
        assert get(url, headers=token).status_code == 200
        assert get(url, headers={**token, "Host": "model.example"}).status_code == 200
        assert get(url, headers={**token, "Host": "other.example"}).status_code == 421


def test_behind_a_proxy_the_url_has_its_prefix(root):
    with process(root, "--root-path", "/models") as (_, said):
        assert said["page"].endswith("/models/")
        direct = said["page"].removesuffix("models/")
        assert get(f"{direct}health").json()["status"] == "ok"  # as a proxy that takes the prefix off asks


@pytest.fixture
def command(capsys, monkeypatch):
    """Run `windtunnel serve` with these words; gives (exit code, stderr on one line)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["windtunnel", "serve", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, " ".join(capsys.readouterr().err.split())

    return run


def test_what_keeps_it_from_starting_is_said_in_one_line(command, root, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cure = "give another with --port, or --port 0 for any that is free"
        assert command(root, "--port", port) == (2, f"windtunnel: port {port} of 127.0.0.1 is taken; {cure}")
    code, said = command(root, "--host", "192.0.2.1", "--port", "0")
    assert (code, "give an address of this machine with --host" in said) == (2, True)
    code, said = command(tmp_path / "nothing")
    assert (code, "is no folder; train a model first" in said) == (3, True)
    assert command(root, "--root-path", "models/")[0] == 2
    assert command(root, "--token", "short")[0] == 2


def test_without_the_extra_it_says_what_to_install(command, root, monkeypatch):
    real = cli.serving.importlib.util.find_spec
    missing = ("starlette", "uvicorn")
    monkeypatch.setattr(
        cli.serving.importlib.util, "find_spec", lambda name, *rest: None if name in missing else real(name, *rest)
    )
    cure = "windtunnel serve needs the package starlette uvicorn; install it with: pip install starlette uvicorn"
    assert command(root) == (1, f"windtunnel: {cure}")


def test_no_packet_of_an_answer_waits_for_the_one_before():
    with listening("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_listener_takes_version_6_of_the_protocol_where_the_machine_has_it(root):
    try:
        with listening("::1", 0) as listener:
            assert listener.family == socket.AF_INET6
    except ConfigError:
        pytest.skip("this machine has no ::1")
    with pytest.raises(ConfigError, match="expected a path like /models"):
        serve(root, "127.0.0.1", 0, print, root_path="/a b")

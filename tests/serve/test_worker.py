"""The worker serves everybody in turn: nobody starves, nobody's leaving costs a place, no error ends it."""

import asyncio
import json
import shutil
import socket
import threading
from queue import Queue
from urllib.parse import urlsplit

import pytest
from served import SIZES, asking, make_run, post

from patience import PATIENCE, wait_for
from windtunnel.errors import ConfigError, DataError
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.generation.trace import trace
from windtunnel.serve import worker as room
from windtunnel.serve.shelf import Names, Shelf, UnknownModel, size_of
from windtunnel.serve.worker import Busy, Worker
from windtunnel.serve.writing import Writing
from windtunnel.text.tokenizers import bytes_tokenizer
from windtunnel.training.run import load

LONG = 5000


@pytest.fixture
def worker(root):
    made = Worker(root, places=4)
    yield made
    made.close()


def writing(prompt="a", n_tokens=LONG, model="prose", temperature=1.0, **more):
    """A writing and the queue of its pieces."""
    pieces = Queue()
    request = Request("", n_tokens, SamplingConfig(temperature=temperature), 1)
    return Writing(model, [prompt], request, **more, put=pieces.put), pieces


def until_end(pieces):
    """All pieces of a writing."""
    found = []
    while (piece := pieces.get(timeout=PATIENCE)) is not None:
        found.append(piece)
    return found


def free(worker):
    """Wait until all places are free."""
    wait_for(lambda: not worker.n_taken, "that all places are free")


def test_a_long_text_does_not_hold_up_a_short_one(worker):
    long, of_long = writing()
    worker.submit(long)
    of_long.get(timeout=PATIENCE)
    short, of_short = writing("bc", 20)
    worker.submit(short)
    assert until_end(of_short)[-1].n_new == 20
    long.cancelled = True
    assert until_end(of_long)[-1].n_new < LONG / 2
    free(worker)


def test_rows_of_one_length_share_a_pass_and_ended_ones_leave_it(worker, monkeypatch):
    sizes, begun = [], room.written

    def counted(trained, texts):
        sizes.append(len(texts))
        return begun(trained, texts)

    monkeypatch.setattr(room, "written", counted)
    gate = threading.Event()
    threading.Thread(target=lambda: asyncio.run(worker.run(lambda _: gate.wait(PATIENCE), "prose"))).start()
    wait_for(lambda: worker.n_taken, "the call")
    first, of_first = writing("ab", 3)
    second, of_second = writing("cd", 30)
    third, of_third = writing("efg", 30)
    for one in (first, second, third):
        worker.submit(one)
    gate.set()
    texts = ["".join(piece.text for piece in until_end(pieces)) for pieces in (of_first, of_second, of_third)]
    assert sorted(sizes) == [1, 2]
    trained = load(worker.names.find("prose"))
    for text, (prompt, n) in zip(texts, [("ab", 3), ("cd", 30), ("efg", 30)], strict=True):
        assert text == trace(trained, Request(prompt, n, SamplingConfig(), 1, 0)).text[len(prompt) :]


def test_when_all_places_are_taken_one_more_is_told_so(root):
    async def run():
        async with asking(root, places=2) as client:
            gate = threading.Event()
            waiting = [
                asyncio.ensure_future(client.app.state.worker.run(lambda _: gate.wait(PATIENCE))) for _ in range(2)
            ]
            await asyncio.sleep(0)
            refused = await post(client, "/v1/completions", {"prompt": "a"})
            tokens = await post(client, "/tokenize", {"prompt": "a"})
            gate.set()
            await asyncio.gather(*waiting)
            answered = await post(client, "/v1/completions", {"model": "names", "prompt": "a"})
            return refused, tokens, answered

    refused, tokens, answered = asyncio.run(run())
    assert (refused.status_code, tokens.status_code, answered.status_code) == (429, 429, 200)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_place_long_before_its_text_has_ended(server, stream, monkeypatch):
    worker, seen, begun = server.app.state.worker, [], room.written
    monkeypatch.setattr(room, "written", lambda trained, texts: begun(trained, seen.extend(texts) or texts))
    body = json.dumps({"model": "prose", "prompt": "a", "max_tokens": 16_000, "stream": stream})
    address = urlsplit(server.url)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        if stream:
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        wait_for(lambda: seen, "the text")
        assert worker.n_taken == 1
    free(worker)
    assert seen[0].n_new < 16_000


def test_a_function_runs_in_the_workers_thread_and_its_error_comes_back(worker):
    def refuse(_):
        raise DataError("no")

    assert asyncio.run(worker.run(lambda _: threading.current_thread().name)) == "windtunnel-worker"
    assert asyncio.run(worker.run(lambda trained: trained.run.name, "names")) == "names/seed-0"
    with pytest.raises(DataError, match="no"):
        asyncio.run(worker.run(refuse))
    with pytest.raises(UnknownModel, match="there is no model 'x'"):
        asyncio.run(worker.run(refuse, "x"))
    free(worker)


def test_an_error_in_a_batch_ends_its_texts_and_nothing_else(worker, monkeypatch):
    real = room.written

    def fails(trained, texts):
        if len(texts[0].ids) == 2:
            yield
            raise MemoryError("none left")
        yield from real(trained, texts)

    monkeypatch.setattr(room, "written", fails)
    good, of_good = writing("a", 50)
    bad, of_bad = writing("xy", 50)
    worker.submit(good)
    worker.submit(bad)
    assert isinstance(of_bad.get(timeout=PATIENCE), MemoryError)
    assert until_end(of_good)[-1].n_new == 50
    free(worker)


def test_closing_finishes_what_was_begun(root):
    worker = Worker(root)
    one, pieces = writing(n_tokens=200)
    worker.submit(one)
    worker.close()
    assert until_end(pieces)[-1].n_new == 200
    with pytest.raises(Busy):
        worker.submit(one)


def test_texts_wait_while_their_keys_and_values_would_not_fit(root, monkeypatch):
    open_at_once, real = [], room.written

    def counted(trained, texts):
        open_at_once.append(len(texts))
        try:
            yield from real(trained, texts)
        finally:
            open_at_once.append(-len(texts))

    monkeypatch.setattr(room, "written", counted)
    config = load(root / "prose").run.config.model
    a_text = 4 * (config.context_length * config.cache_elements_per_token() + config.vocab_size)
    worker = Worker(root, memory=4 * 3 * a_text + 1)
    worker.shelf.limit = 10**9
    one, pieces = writing(n_tokens=40, n=8)
    worker.submit(one)
    found = until_end(pieces)
    worker.close()
    assert {piece.choice for piece in found if piece.finish} == set(range(8))
    most, now = 0, 0
    for change in open_at_once:
        now += change
        most = max(most, now)
    assert most == 3


def test_the_model_used_last_but_one_leaves_when_memory_is_short(root):
    names = Names(root)
    sizes = {name: size_of(load(names.find(name)).model) for name in ("names/seed-0", "names/seed-1", "prose")}
    shelf = Shelf(names, sum(sizes.values()) - 1)
    for name in ("names/seed-0", "prose", "names/seed-0", "names/seed-1"):
        shelf.get(name)
    assert [trained.run.name for trained in shelf.loaded.values()] == ["names/seed-0", "names/seed-1"]
    assert shelf.n_bytes() == sizes["names/seed-0"] + sizes["names/seed-1"]
    assert shelf.get("names/seed-0") is shelf.get("names")
    with pytest.raises(ConfigError, match="start windtunnel serve with a larger --memory"):
        Shelf(names, sizes["prose"] - 1).get("prose")


def test_a_model_that_was_trained_further_is_loaded_again(tmp_path):
    make_run(tmp_path / "a", bytes_tokenizer(end=False), unit="text", sizes=SIZES)
    shelf = Shelf(Names(tmp_path), 10**9)
    before = shelf.get("a")
    assert shelf.get("last") is before
    shutil.copytree(tmp_path / "a/step-0", tmp_path / "a/step-7")
    assert shelf.get("a") is not before


def test_a_run_that_was_made_anew_is_loaded_again_and_one_that_was_deleted_is_unknown(tmp_path):
    shelf = Shelf(Names(tmp_path), 10**9)
    for seed in (1, 2):  # both stand at step 0
        run = make_run(tmp_path / "a", bytes_tokenizer(end=False), unit="text", sizes=SIZES, seed=seed)
        assert shelf.get("a").run.config.seed == seed
        shutil.rmtree(run.folder)
        with pytest.raises(UnknownModel):
            shelf.get("a")


def test_a_new_run_can_be_named_once_the_listing_is_old(tmp_path):
    names = Names(tmp_path)
    with pytest.raises(UnknownModel):
        names.find("a")
    make_run(tmp_path / "a", bytes_tokenizer(end=False), unit="text", sizes=SIZES)
    names._listed -= 10
    assert names.find("a") == names.find("last") == tmp_path / "a"
    assert list(Names(tmp_path / "a").runs()) == ["a"]

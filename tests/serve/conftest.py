"""A folder of small runs, and servers for it."""

import asyncio

import pytest
from served import SIZES, TEMPLATE, asking, chat_tokenizer, make_run, post, running

from windtunnel.models.mlp import MLPConfig
from windtunnel.models.rnn import RNNConfig
from windtunnel.models.translator import TranslatorConfig
from windtunnel.text.tokenizers import bytes_tokenizer, characters_tokenizer


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """names/seed-0 and 1 write lines; prose runs on; mlp has no cache, rnn a state; talk chats; pairs cannot write."""
    folder = tmp_path_factory.mktemp("runs")
    letters = characters_tokenizer("abcdefghijklmnopqrstuvwxyz", end=True)
    make_run(folder / "mlp", letters, kind=MLPConfig, sizes={"context_length": 3})
    make_run(folder / "rnn", letters, kind=RNNConfig, sizes={"context_length": 24, "d_model": 16})
    make_run(folder / "prose", bytes_tokenizer(end=False), unit="text", sizes={**SIZES, "position": "rope"})
    chat = {"chat_template": TEMPLATE, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    make_run(folder / "talk", chat_tokenizer(), chat=chat, marks={}, generation={})
    pair = characters_tokenizer("abc", end=True, marks=("begin", "turn", "pad"))
    make_run(folder / "pairs", pair, kind=TranslatorConfig, sizes={"context_length": 8, "d_model": 16, "n_heads": 2})
    for seed in (1, 0):
        make_run(folder / f"names/seed-{seed}", letters, seed=seed)
    return folder


@pytest.fixture
def ask(root):
    """ask(path, body): the JSON of the answer, given its expected status."""

    def once(path, body=None, status=200):
        async def run():
            async with asking(root) as client:
                found = await (client.get(path) if body is None else post(client, path, body))
                assert found.status_code == status, found.text
                return found.json() if found.headers["content-type"] == "application/json" else found.text

        return asyncio.run(run())

    return once


@pytest.fixture(scope="module")
def server(root):
    """One that the tests of a file share."""
    with running(root) as found:
        yield found

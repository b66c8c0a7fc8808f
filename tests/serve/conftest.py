"""A folder of small runs with large random weights, which nobody had to train, and ways to ask a server for them."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import httpx
import pytest
import uvicorn

from windtunnel.config import parse
from windtunnel.models import build
from windtunnel.models.mlp import MLPConfig
from windtunnel.models.transformer import TransformerConfig
from windtunnel.models.translator import TranslatorConfig
from windtunnel.serve.app import create_app
from windtunnel.serve.safety import Policy
from windtunnel.serve.serving import OWN_NAMES, listening
from windtunnel.text.store import TextConfig
from windtunnel.text.tokenizers import Tokenizer, bytes_tokenizer, characters_tokenizer
from windtunnel.training.imports import create_with_weights
from windtunnel.training.run_config import RunConfig, TrainConfig

TOKEN = "a-token-of-the-tests"
POLICY = Policy(frozenset(OWN_NAMES), TOKEN)
SIZES = {"context_length": 24, "n_layers": 2, "n_heads": 2, "d_model": 16}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_tokenizer():
    """Bytes, and the marks of a conversation."""
    data = json.loads(bytes_tokenizer(end=False).to_json())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    names = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    data["added_tokens"] = [{"id": 256 + i, "content": name, **flags} for i, name in enumerate(names)]
    return Tokenizer.from_json(json.dumps(data))


def make_run(folder, tokenizer, unit="line", seed=0, kind=TransformerConfig, sizes=SIZES, **facts):
    """A run of random weights."""
    model = parse(kind, {"vocab_size": tokenizer.vocab_size, **sizes})
    config = RunConfig(
        corpus="",
        text=TextConfig(unit=unit, tokenizer=tokenizer.kind),
        model=model,
        train=TrainConfig(steps=0),
        seed=seed,
        **({"task": {"kind": "translation"}} if kind is TranslatorConfig else {}),
    )
    network = build(model, seed)
    weights = {name: tensor * (8 if tensor.dim() > 1 else 1) for name, tensor in network.state_dict().items()}
    return create_with_weights(folder, config, weights, tokenizer, None, {"made": "random", **facts})


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """names/seed-0 and seed-1 write lines; prose runs on; mlp has no cache; talk converses; pairs cannot write."""
    folder = tmp_path_factory.mktemp("runs")
    letters = characters_tokenizer("abcdefghijklmnopqrstuvwxyz", end=True)
    make_run(folder / "mlp", letters, kind=MLPConfig, sizes={"context_length": 3})
    make_run(folder / "prose", bytes_tokenizer(end=False), unit="text", sizes={**SIZES, "position": "rope"})
    chat = {"chat_template": TEMPLATE, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    make_run(folder / "talk", chat_tokenizer(), chat=chat, marks={}, generation={})
    pair = characters_tokenizer("abc", end=True, marks=("begin", "turn", "pad"))
    make_run(folder / "pairs", pair, kind=TranslatorConfig, sizes={"context_length": 8, "d_model": 16, "n_heads": 2})
    for seed in (1, 0):
        make_run(folder / f"names/seed-{seed}", letters, seed=seed)
    return folder


@asynccontextmanager
async def asking(root, policy=POLICY, **settings):
    """A client of an application in this process."""
    app = create_app(root, policy, **settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            client.app = app
            yield client


async def post(client, path, body, **headers):
    """In ASCII, for half of a surrogate pair has no UTF-8."""
    return await client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json", **headers})


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


@dataclass(frozen=True)
class Server:
    """A server that listens on a port of this machine."""

    url: str
    app: object


@contextmanager
def running(root, policy=POLICY, **settings):
    """A real server, in a thread of this process."""
    app = create_app(root, policy, **settings)
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", app)
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def server(root):
    """One that the tests of a file share."""
    with running(root) as found:
        yield found

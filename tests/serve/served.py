"""Runs of large random weights, which nobody had to train, and ways to ask a server for them."""

import json
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import httpx
import uvicorn

from windtunnel.config import parse
from windtunnel.models import build
from windtunnel.models.transformer import TransformerConfig
from windtunnel.models.translator import TranslatorConfig
from windtunnel.serve.app import create_app
from windtunnel.serve.safety import Policy
from windtunnel.serve.serving import OWN_NAMES, listening
from windtunnel.text.store import TextConfig
from windtunnel.text.tokenizers import Tokenizer, bytes_tokenizer
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


def make_run(folder, tokenizer, unit="line", seed=0, kind=TransformerConfig, sizes=SIZES, scale=8.0, **facts):
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
    weights = {name: tensor * (scale if tensor.dim() > 1 else 1) for name, tensor in network.state_dict().items()}
    return create_with_weights(folder, config, weights, tokenizer, None, {"made": "random", **facts})


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
        while not server.started:
            time.sleep(0.01)
        try:
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", app)
        finally:
            server.should_exit = True
            thread.join()

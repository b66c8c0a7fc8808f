"""The OpenAI-compatible API, for any client."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from windtunnel.errors import ConfigError, WindtunnelError
from windtunnel.generation.chat import chat_ids
from windtunnel.generation.opening import Opening, opening
from windtunnel.generation.request import Request as Asked
from windtunnel.models.pretrained.marks import marks_of
from windtunnel.serve.answers import ChatForm, CompletionForm, Form, models
from windtunnel.serve.bodies import Chat, Completion, Detokenize, Tokenize, Writes, read
from windtunnel.serve.safety import Json, error
from windtunnel.serve.shelf import LAST
from windtunnel.serve.worker import Worker
from windtunnel.serve.writing import Piece, Writing
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.run import TrainedModel

T = TypeVar("T")
TEMPLATES = CapacityLimiter(2)
"""Chat templates that are run at a time, each in a process of its own."""


async def health(request: Request) -> Response:
    """Whether the worker lives, and how many of its places are taken."""
    worker: Worker = request.app.state.worker
    return Json({"status": "ok", "taken": worker.n_taken, "places": worker.places})


async def list_models(request: Request) -> Response:
    """The runs below the folder, by the names that a request may say."""
    worker: Worker = request.app.state.worker
    return Json(models(await run_sync(_dated, worker)))


async def show_model(request: Request) -> Response:
    """One of them."""
    name, worker = request.path_params["name"], request.app.state.worker
    folder: Path = await run_sync(worker.names.find, name)
    return Json(models([(name, _created(folder))])["data"][0])


def _dated(worker: Worker) -> list[tuple[str, int]]:
    return [(name, _created(folder)) for name, folder in worker.names.runs().items()]


def _created(folder: Path) -> int:
    try:
        return int(folder.stat().st_mtime)
    except OSError:  # it has been removed meanwhile
        return 0


async def complete(request: Request) -> Response:
    """Texts after a prompt, or several."""
    asked = await read(request, Completion)
    made = asked.request(asked.max_tokens, _seed(asked))
    writing = Writing(asked.model, asked.prompt, made, asked.n, asked.echo, asked.logprobs)
    return await _answer(request, CompletionForm(writing), asked)


async def chat(request: Request) -> Response:
    """The answer to a conversation, by a model that has a template for one."""
    asked, worker = await read(request, Chat), request.app.state.worker
    tokenizer, own, ends = await worker.run(_for_chat, asked.model)
    turns = [{"role": turn.role, "content": turn.content} for turn in asked.messages]
    ids, end = await run_sync(chat_ids, tokenizer, own, turns, limiter=TEMPLATES)
    begin = Opening(ids, ends if end is None else ends | {end}, False)
    made = asked.request(asked.n_tokens, _seed(asked))
    logprobs = asked.top_logprobs if asked.logprobs else None
    return await _answer(request, ChatForm(Writing(asked.model, [begin], made, asked.n, False, logprobs)), asked)


def _for_chat(trained: TrainedModel) -> tuple[Tokenizer, dict[str, str], frozenset[int]]:
    marks = marks_of(trained.run.record)
    if marks is None or "chat_template" not in marks.chat:
        raise ConfigError(f"{trained.run.name} has no chat template; ask /v1/completions")
    return trained.tokenizer, dict(marks.chat), marks.ends(trained.tokenizer)


def _seed(asked: Writes) -> int:
    return secrets.randbelow(2**31) if asked.seed is None else asked.seed


async def _answer(request: Request, form: Form, asked: Writes) -> Response:
    """The texts that are asked for, whole, or as they come."""
    pieces = _pieces(request.app.state.worker, form.writing)
    if not asked.stream:
        return Json(await _unless_gone(request, form.collected(pieces)))
    first = await _unless_gone(request, anext(pieces))  # what cannot be answered is known before an answer begins
    parts = form.parts(_after(first, pieces), asked.wants_usage)
    return Stream(form.writing, _events(parts))


class Stream(StreamingResponse):
    """Server-sent events; when the client goes away, nothing more is written for it."""

    media_type = "text/event-stream"

    def __init__(self, writing: Writing, events: AsyncIterator[str]) -> None:
        super().__init__(events)
        self.writing = writing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.writing.cancelled = True


async def _pieces(worker: Worker, writing: Writing) -> AsyncIterator[Piece]:
    """The pieces as they come; whoever stops to listen frees the place."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Piece | Exception | None]()

    def put(item: Piece | Exception | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens
            loop.call_soon_threadsafe(queue.put_nowait, item)

    writing.put = put
    worker.submit(writing)
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        writing.cancelled = True


async def _after(first: Piece, rest: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    yield first
    async for piece in rest:
        yield piece


async def _events(parts: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        async for part in parts:
            yield f"data: {json.dumps(part, allow_nan=False)}\n\n"
            await asyncio.sleep(0)  # many may be there at once: whether the client has gone away is seen in between
        yield "data: [DONE]\n\n"
    except WindtunnelError as problem:
        yield f"data: {bytes(error(400, str(problem)).body).decode()}\n\n"


async def _unless_gone(request: Request, wanted: Awaitable[T]) -> T:
    """What is wanted, unless the client goes away before."""
    work, gone = asyncio.ensure_future(wanted), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        for task in (work, gone):
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def tokenizer_info(request: Request) -> Response:
    """The special tokens of a model's tokenizer by their part, as vLLM gives them."""
    name = request.query_params.get("model", LAST)
    return Json(await request.app.state.worker.run(_about_tokenizer, name))


def _about_tokenizer(trained: TrainedModel) -> dict[str, Any]:
    tokenizer, marks = trained.tokenizer, marks_of(trained.run.record)
    texts = {id: text for text, id in tokenizer.specials.items()}
    end = None if tokenizer.end_id is None else texts.get(tokenizer.end_id)
    own = {} if marks is None else dict(marks.chat)
    tokens = {name: own.get(name) for name in ("bos_token", "pad_token", "unk_token", "chat_template")}
    return {
        "eos_token": own.get("eos_token", end),
        **tokens,
        "vocab_size": tokenizer.vocab_size,
        "max_model_len": trained.run.config.model.context_length,
    }


async def tokenize(request: Request) -> Response:
    """The ids of a text; a special token's text alone is its id."""
    asked = await read(request, Tokenize)

    def ids(trained: TrainedModel) -> dict[str, Any]:
        special = trained.tokenizer.specials.get(asked.prompt)
        if special is not None:
            found = [special]
        elif asked.add_special_tokens:
            found = opening(trained, Asked(asked.prompt, 0)).ids
        else:
            found = trained.tokenizer.encode(asked.prompt).tolist()
        return {"tokens": found, "count": len(found), "max_model_len": trained.run.config.model.context_length}

    return Json(await request.app.state.worker.run(ids, asked.model))


async def detokenize(request: Request) -> Response:
    """The text of ids, as `prompt`."""
    asked = await read(request, Detokenize)
    text = await request.app.state.worker.run(lambda trained: trained.tokenizer.decode(asked.tokens), asked.model)
    return Json({"prompt": text})


ROUTES: list[Route] = [
    Route("/health", health),
    Route("/v1/models", list_models),
    Route("/v1/models/{name:path}", show_model),
    Route("/v1/completions", complete, methods=["POST"]),
    Route("/v1/chat/completions", chat, methods=["POST"]),
    Route("/tokenizer_info", tokenizer_info),
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
]

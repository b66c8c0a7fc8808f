"""What clients ask for, checked before anything of it is tokenized: every number, list and text has a bound."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, model_validator
from starlette.requests import Request as HttpRequest

from windtunnel.config import Config, parse
from windtunnel.errors import ConfigError
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.serve.shelf import LAST

TEXTS = 128
"""Texts of one request: prompts times `n`."""
CHARACTERS = 1 << 18
"""Characters of the prompts of all texts of a request together, or ids."""
TOKENS = 16_384
"""Tokens of one text."""
ALL_TOKENS = 1 << 18
"""Tokens of all texts of a request together."""
LOGARITHMS = 1 << 19
"""Logarithms in one answer, which is held in memory until it is whole."""
STOPS = 4
MESSAGES = 256

Prompt = str | list[int]
C = TypeVar("C", bound=Config)


def _prompts(given: Any) -> tuple[Prompt, ...]:
    """The prompts of a text, texts, ids, or lists of ids."""
    is_list = isinstance(given, list)
    prompts = given if is_list and given and all(isinstance(one, str | list) for one in given) else [given]
    if len(prompts) > TEXTS:
        raise ValueError(f"at most {TEXTS} prompts, given {len(prompts):,}")
    if not all(isinstance(prompt, str) or _are_ids(prompt) for prompt in prompts):
        raise ValueError("expected a text, a list of texts, a list of token ids, or a list of lists of token ids")
    return tuple(prompts)


def _are_ids(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(type(id) is int and 0 <= id < 2**31 for id in given)


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or not all(isinstance(one, str) and 1 <= len(one) <= 256 for one in stops):
        raise ValueError("expected a text or a list of texts, of 1 to 256 characters each")
    if len(stops) > STOPS:
        raise ValueError(f"at most {STOPS} texts, given {len(stops):,}")
    return tuple(stops)


def _name(given: Any) -> str:
    """As it is: a folder's name may hold half of a surrogate pair, in place of a byte that is not UTF-8."""
    if not isinstance(given, str) or len(given) > 1024:
        raise ValueError("expected a name of GET /v1/models")
    return given


def _text_of(given: Any) -> Any:
    """The text of a message that comes in parts."""
    if not isinstance(given, list) or not all(isinstance(part, dict) and part.get("type") == "text" for part in given):
        return given
    return "".join(str(part.get("text", "")) for part in given)


class Body(Config):
    """A JSON body. Settings that it does not name are ignored, unless they would change the answer."""

    model_config = ConfigDict(extra="ignore")
    refused: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Settings that are not supported, with the values at which they ask for nothing."""
    model: Annotated[str, PlainValidator(_name)] = LAST

    @model_validator(mode="before")
    @classmethod
    def _none_in_words(cls, data: Any) -> Any:
        """Null is a setting that was not given; the word none is a text like any other."""
        given = {name: value for name, value in data.items() if value is not None}
        for name, harmless in cls.refused.items():
            if name in given and given[name] not in harmless:
                raise ValueError(f"{name[:100]} is not supported; leave it out")
        return given


class Writes(Body):
    """What both kinds of completions have."""

    n: Annotated[int, Field(ge=1, le=TEXTS)] = 1
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[tuple[str, ...], PlainValidator(_stops)] = ()
    stream: bool = False
    stream_options: Annotated[dict[str, Any], Field(default_factory=dict)]

    def request(self, n_tokens: int, seed: int) -> Request:
        """As the rooms below take it; the prompts are beside it."""
        top_p = None if self.top_p == 1 else self.top_p
        sampling = SamplingConfig(temperature=self.temperature, top_k=self.top_k, top_p=top_p)
        return Request("", n_tokens, sampling, seed, stop=self.stop)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with how many tokens it took."""
        return self.stream_options.get("include_usage") is True


def _bounded(n_tokens: int, logprobs: int | None) -> None:
    """Raises ValueError for an answer that would be too large."""
    if n_tokens > ALL_TOKENS:
        raise ValueError(f"texts times max_tokens are at most {ALL_TOKENS:,} tokens, given {n_tokens:,}")
    if logprobs is not None and (n := n_tokens * (logprobs + 1)) > LOGARITHMS:
        raise ValueError(f"an answer has at most {LOGARITHMS:,} logarithms, given {n:,}; ask for fewer at a time")


PENALTIES = {"presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({},)}


class Completion(Writes):
    """POST /v1/completions."""

    refused: ClassVar = {**PENALTIES, "best_of": (1,), "suffix": ("",)}
    prompt: Annotated[tuple[Prompt, ...], PlainValidator(_prompts)] = ("",)
    max_tokens: Annotated[int, Field(ge=0, le=TOKENS)] = 16
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _not_too_many(self) -> Completion:
        if (asked := len(self.prompt) * self.n) > TEXTS:
            raise ValueError(f"prompts times n is at most {TEXTS}, given {asked}")
        if (size := sum(map(len, self.prompt)) * self.n) > CHARACTERS:
            raise ValueError(f"prompts times n are at most {CHARACTERS:,} characters or ids together, given {size:,}")
        _bounded(asked * self.max_tokens + size * self.echo, self.logprobs)
        return self


class Message(Config):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="ignore")
    role: Annotated[str, Field(pattern="^(system|developer|user|assistant)$")]
    content: Annotated[str, BeforeValidator(_text_of), Field(max_length=CHARACTERS)]


class Chat(Writes):
    """POST /v1/chat/completions."""

    refused: ClassVar = {
        **PENALTIES, "tools": ([],), "functions": ([],), "response_format": ({"type": "text"},),
        "modalities": (["text"],), "audio": (),
    }  # fmt: skip
    messages: Annotated[list[Message], Field(min_length=1, max_length=MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1, le=TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=TOKENS)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0

    @property
    def n_tokens(self) -> int:
        """Tokens of the answer, at most."""
        return self.max_completion_tokens or self.max_tokens or 256

    @model_validator(mode="after")
    def _not_too_many(self) -> Chat:
        _bounded(self.n * self.n_tokens, self.top_logprobs if self.logprobs else None)
        return self


class Tokenize(Body):
    """POST /tokenize."""

    prompt: Annotated[str, Field(max_length=CHARACTERS)]
    add_special_tokens: bool = True


class Detokenize(Body):
    """POST /detokenize."""

    tokens: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=CHARACTERS)]


async def read(request: HttpRequest, kind: type[C]) -> C:
    """The body of a request.

    Raises:
        ConfigError: when it is no JSON object, or a setting in it is wrong.
    """
    try:
        data = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"expected a JSON object, given {type(data).__name__}")
    return parse(kind, data)

"""A conversation in the form that a model was trained on: by its own template, which can do no harm.

A template is a program in Jinja by whoever made the model. It is run in Jinja's sandbox, in a process of its own whose
time, memory and output are limited. What it writes around the user's message may hold the model's special tokens; the
message may not: there they are characters like any others.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from uuid import uuid4

from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.text.tokenizers import Tokenizer

SECONDS, MEGABYTES, LONGEST = 5, 512, 1 << 20
"""What a template may take: time of a core, memory, and characters of itself and of what it writes."""

_RENDER = """
import json, resource, sys
seconds, megabytes, longest = map(int, sys.argv[1:])
from jinja2.sandbox import ImmutableSandboxedEnvironment
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
def refuse(message):
    raise ValueError(str(message)[:200])
try:
    template, messages, names = json.load(sys.stdin)
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    made.globals["raise_exception"] = refuse
    made.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    parts, length = [], 0
    for part in made.from_string(template).generate(messages=messages, add_generation_prompt=True, **names):
        parts.append(part)
        length += len(part)
        if length > longest:
            raise ValueError(f"it writes more than {longest:,} characters")
    print(json.dumps({"text": "".join(parts)}))
except MemoryError:
    print(json.dumps({"error": "it takes more memory than a template needs"}))
except Exception as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}))
"""


Messages = Sequence[Mapping[str, str]]
"""Turns of a conversation, each with its role and its content."""


def chat_ids(tokenizer: Tokenizer, chat: Mapping[str, str], messages: str | Messages) -> tuple[list[int], int | None]:
    """The ids that a model reads before it answers, and the id that ends its answer, where it is known.

    Args:
        chat: chat_template, bos_token and eos_token, as an import keeps them.
        messages: a conversation, or one message of a user.

    Raises:
        ConfigError: when there is no template.
        ArtifactError: when the template fails, takes too long, or alters a message.
    """
    if "chat_template" not in chat:
        raise ConfigError("this run has no chat template; only some imported models have one: leave out --chat")
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    places = {uuid4().hex: turn["content"] for turn in turns}
    marked = [{**turn, "content": place} for turn, place in zip(turns, places, strict=True)]
    around, whole = re.split(f"({'|'.join(places)})", render(chat, marked)), render(chat, turns)
    if not set(places) <= set(around) or (said := _said(around, whole, places)) is None:
        raise ArtifactError("the model's chat template alters the message or leaves it out; leave out --chat")
    ids = [id for text in _woven(tokenizer, around, said) for id in _encode(tokenizer, *text)]
    return ids, tokenizer.specials.get(chat.get("eos_token", ""), tokenizer.end_id)


def _said(around: Sequence[str], whole: str, places: Mapping[str, str]) -> list[str] | None:
    """What stands at each place of a text, the content or that without white space around it; None if something else.

    Args:
        around: pieces of the template's own and, between each two, a place.
    """
    said, at = [], len(around[0])
    for place, after in zip(around[1::2], around[2::2], strict=True):
        texts = (places[place], places[place].strip())
        fitting = next((text for text in texts if whole.startswith(text + after, at)), None)
        if fitting is None:
            return None
        said.append(fitting)
        at += len(fitting) + len(after)
    return said if whole.startswith(around[0]) and at == len(whole) else None


def render(chat: Mapping[str, str], messages: Messages) -> str:
    """What the template writes of a conversation, up to where the answer begins. Raises as `chat_ids` does."""
    template = chat["chat_template"]
    if len(template) + sum(len(turn["content"]) for turn in messages) > LONGEST:
        raise ArtifactError(f"the chat template and the messages are longer than {LONGEST:,} characters; shorten them")
    names = {name: chat.get(name, "") for name in ("bos_token", "eos_token")}
    given = json.dumps([template, [dict(turn) for turn in messages], names])
    limits = map(str, (SECONDS, MEGABYTES, LONGEST))
    try:
        found = subprocess.run(
            [sys.executable, "-I", "-c", _RENDER, *limits],
            input=given,
            capture_output=True,
            text=True,
            timeout=20 * SECONDS,
            check=False,
        )
        answer = json.loads(found.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        answer = {"error": f"it takes longer than {SECONDS} s or more than {MEGABYTES} MB"}
    if "error" in answer:
        raise ArtifactError(f"the model's chat template cannot be used: {answer['error']}; leave out --chat")
    return str(answer["text"])


def _woven(tokenizer: Tokenizer, around: Sequence[str], said: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The conversation cut at the template's special tokens; and of each piece whether it is such a token."""
    specials = sorted(tokenizer.specials, key=len, reverse=True)
    mark = f"({'|'.join(map(re.escape, specials))})" if specials else "(?!)()"
    piece = ""
    for own, message in zip(around[::2], [*said, ""], strict=True):
        first, *rest = re.split(mark, own)
        piece += first
        for special, after in zip(rest[::2], rest[1::2], strict=True):
            yield from [(piece, False)] if piece else []
            yield special, True
            piece = after
        piece += message
    if piece:
        yield piece, False


def _encode(tokenizer: Tokenizer, piece: str, is_special: bool) -> list[int]:
    return [tokenizer.specials[piece]] if is_special else [int(id) for id in tokenizer.encode(piece)]

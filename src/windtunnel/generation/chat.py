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
from collections.abc import Iterator, Mapping
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


def chat_ids(tokenizer: Tokenizer, chat: Mapping[str, str], message: str) -> tuple[list[int], int | None]:
    """The ids that a model reads before it answers a message, and the id that ends its answer, where it is known.

    Args:
        chat: chat_template, bos_token and eos_token, as an import keeps them.

    Raises:
        ConfigError: when there is no template.
        ArtifactError: when the template fails, takes too long, or alters the message.
    """
    if "chat_template" not in chat:
        raise ConfigError("this run has no chat template; only some imported models have one: leave out --chat")
    place = uuid4().hex
    around, whole = render(chat, place), render(chat, message)
    fitting = (text for text in (message, message.strip()) if around.replace(place, text) == whole)
    said = next(fitting, None)
    if said is None or place not in around:
        raise ArtifactError("the model's chat template alters the message or leaves it out; leave out --chat")
    ids = [id for piece in _pieces(tokenizer, around) for id in _encode(tokenizer, piece, place, said)]
    return ids, tokenizer.specials.get(chat.get("eos_token", ""), tokenizer.end_id)


def render(chat: Mapping[str, str], message: str) -> str:
    """What the template writes of one message of a user, up to where the answer begins. Raises as `chat_ids` does."""
    template = chat["chat_template"]
    if len(template) + len(message) > LONGEST:
        raise ArtifactError(f"the chat template and the message are longer than {LONGEST:,} characters; shorten them")
    names = {name: chat.get(name, "") for name in ("bos_token", "eos_token")}
    given = json.dumps([template, [{"role": "user", "content": message}], names])
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


def _pieces(tokenizer: Tokenizer, text: str) -> Iterator[str]:
    """The text cut at special tokens, which are pieces of their own."""
    specials = sorted(tokenizer.specials, key=len, reverse=True)
    yield from filter(None, re.split(f"({'|'.join(map(re.escape, specials))})", text) if specials else [text])


def _encode(tokenizer: Tokenizer, piece: str, place: str, said: str) -> list[int]:
    if piece in tokenizer.specials:
        return [tokenizer.specials[piece]]
    return [int(id) for id in tokenizer.encode(piece.replace(place, said))]

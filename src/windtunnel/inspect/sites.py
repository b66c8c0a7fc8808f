"""Names for what a model computes on the way, and how it is recorded or changed there.

    PATH                     the output of the module of this name: blocks.0, blocks.3.feed_forward, norm
    PATH.in                  its first input; blocks.0.in is tokens and positions, embedded
    blocks.N.resid           the residual stream (B, T, D) after block N, the first being 0: the output of blocks.N
    ATTENTION.q, .k, .v      queries (B, H, T, K), keys and values (B, G, S, K) as they meet, positions turned in
    ATTENTION.pattern        attention weights (B, H, T, S), each row summing to 1
    ATTENTION.heads          what each head hands on, (B, H, T, K)

ATTENTION is the path of an attention, such as blocks.3.attention. The pass is that of the fast path; only `pattern`
computes what the fast path leaves out.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from windtunnel.errors import ConfigError, DataError
from windtunnel.models.block import Attention, CrossAttention
from windtunnel.nn.attention import Attend, Mask, attention_weights
from windtunnel.nn.blocks import blocks_of

INSIDE = ("q", "k", "v", "pattern", "heads")
"""What an attention has inside, beside its parts."""

Tap = Callable[[Tensor], Tensor | None]
"""Is shown a value; what it returns takes the value's place, None leaves it."""


def site_names(model: nn.Module) -> list[str]:
    """The names of all sites of a model."""
    blocks = {id(block) for block in blocks_of(model)}
    names = []
    for path, module in model.named_modules():
        if not path or not _is_called(module):
            continue
        names += [path, f"{path}.in", *([f"{path}.resid"] if id(module) in blocks else [])]
        names += [f"{path}.{inside}" for inside in INSIDE if isinstance(module, Attention | CrossAttention)]
    return names


def _is_called(module: nn.Module) -> bool:
    """Whether a model calls it in a pass: tables are looked up in, and positions are asked for what they add."""
    return type(module).forward is not nn.Module.forward and not isinstance(module, nn.Embedding | nn.ModuleList)


def matching(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The sites that a model has of these names, in which * stands for anything.

    Raises:
        ConfigError: for a pattern that no site matches, naming the nearest site.
    """
    names, found = site_names(model), dict[str, None]()
    for pattern in patterns:
        own = [name for name in names if fnmatchcase(name, pattern)]
        if not own:
            near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.3)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"the model has no site {pattern!r}{hint}")
        found |= dict.fromkeys(own)
    return list(found)


@contextmanager
def tapped(model: nn.Module, taps: Mapping[str, Tap]) -> Iterator[None]:
    """While this lasts, every pass of the model shows each site's value to its tap.

    Raises:
        ConfigError: for a name that is no site.
    """
    matching(model, list(taps))
    modules, inside = dict(model.named_modules()), defaultdict[str, dict[str, Tap]](dict)
    with ExitStack() as stack:
        for name, tap in taps.items():
            path, _, last = name.rpartition(".")
            if last in INSIDE and isinstance(modules.get(path), Attention | CrossAttention) and name not in modules:
                inside[path][last] = tap
            elif last == "in" and name not in modules:
                stack.enter_context(_removed(modules[path].register_forward_pre_hook(_on_input(tap))))
            else:
                module = modules[name] if name in modules else modules[path]
                stack.enter_context(_removed(module.register_forward_hook(_on_output(tap))))
        for path, own in inside.items():
            stack.enter_context(_removed(modules[path].register_forward_pre_hook(_on_attention(own))))
        yield


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _on_input(tap: Tap) -> Callable[..., Any]:
    def hook(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        new = tap(given[0])
        return None if new is None else (new, *given[1:])

    return hook


def _on_output(tap: Tap) -> Callable[..., Any]:
    """Of several values that a module gives, as a recurrent layer gives its states, the first is tapped."""

    def hook(_: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        new = tap(first) if isinstance(first, Tensor) else None
        return None if new is None else (new, *output[1:]) if isinstance(output, tuple) else new

    return hook


def _on_attention(taps: Mapping[str, Tap]) -> Callable[..., Any]:
    """Gives the attention a pass whose function is tapped."""
    return lambda _, given: (given[0], given[1]._replace(attend=_tapped_attend(given[1].attend, taps)), *given[2:])


def _tapped_attend(attend: Attend, taps: Mapping[str, Tap]) -> Attend:
    def show(name: str, value: Tensor) -> Tensor:
        new = taps[name](value) if name in taps else None
        return value if new is None else new

    def tapped_attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, dropout: float) -> Tensor:
        q, k, v = show("q", q_BHTK), show("k", k_BGSK), show("v", v_BGSK)
        new = taps["pattern"](attention_weights(q, k, mask)) if "pattern" in taps else None
        if new is None:
            return show("heads", attend(q, k, v, mask, dropout))
        return show("heads", new.to(v.dtype) @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1))

    return tapped_attend


class Seen(dict[str, Tensor]):
    """Values by the names of their sites."""

    def __missing__(self, name: str) -> Tensor:
        there = f"; recorded are {', '.join(self)}" if self else ""
        raise ConfigError(f"no pass has gone through {name} since recording began{there}")


@contextmanager
def recorded(model: nn.Module, patterns: Sequence[str]) -> Iterator[Seen]:
    """While this lasts, the values of all sites that match, by name, as the last pass had them.

    Raises:
        ConfigError: for a pattern that no site matches.
    """
    seen = Seen()

    def keep(name: str) -> Tap:
        def tap(value: Tensor) -> None:
            seen[name] = value.detach()

        return tap

    with tapped(model, {name: keep(name) for name in matching(model, patterns)}):
        yield seen


HEAD = re.compile(r"(.+\.heads)\.(\d+)")
"""One head of an attention: ATTENTION.heads.H."""


def head_site(block: int, head: int) -> str:
    """The name under which `ablated` knows one head of a model of blocks, both from 0."""
    return f"blocks.{block}.attention.heads.{head}"


@contextmanager
def ablated(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """While this lasts, the values at these sites are zero.

    Args:
        names: as in `matching`, or of one head, ATTENTION.heads.H.

    Raises:
        ConfigError: for no name, a pattern that no site matches, or a head that there is not.
    """
    if not names:
        raise ConfigError("expected a site or a head to ablate, given none")
    heads: dict[str, list[int]] = {}
    for site, head in (match.groups() for name in names if (match := HEAD.fullmatch(name))):
        heads.setdefault(site, []).append(int(head))
    whole = matching(model, [name for name in names if not HEAD.fullmatch(name)])
    for site, own in heads.items():
        _check_heads(model, matching(model, [site])[0], own)

    def without(own: list[int]) -> Tap:
        def tap(heads_BHTK: Tensor) -> Tensor:
            return heads_BHTK.index_fill(1, torch.tensor(own, device=heads_BHTK.device), 0)

        return tap

    taps: dict[str, Tap] = {site: without(own) for site, own in heads.items()}
    with tapped(model, taps | dict.fromkeys(whole, torch.zeros_like)):
        yield


def _check_heads(model: nn.Module, site: str, heads: Sequence[int]) -> None:
    attention = model.get_submodule(site.removesuffix(".heads"))
    assert isinstance(attention, Attention | CrossAttention)
    if wrong := [head for head in heads if head >= attention.n_heads]:
        raise ConfigError(f"{site} has the heads 0 to {attention.n_heads - 1}, given {wrong[0]}")


@contextmanager
def patched(model: nn.Module, values: Mapping[str, Tensor], positions: Sequence[int] | None = None) -> Iterator[None]:
    """While this lasts, each site has the value (1, T, D) or, inside an attention, (1, H, T, ...) that is given.

    Args:
        positions: of the tokens whose value is replaced; None is all.

    Raises:
        DataError: in a pass whose value has another shape, or that lacks a position.
    """

    def tap_of(name: str, given: Tensor) -> Tap:
        axis = 2 if name.rpartition(".")[2] in INSIDE else 1

        def tap(value: Tensor) -> Tensor:
            if positions is None and value.shape != given.shape:
                raise DataError(
                    f"{name} is {tuple(value.shape)} here and {tuple(given.shape)} in the text patched from"
                )
            at = torch.arange(value.shape[axis]) if positions is None else torch.tensor(list(positions))
            least = min(value.shape[axis], given.shape[axis])
            if len(at) and not -least <= int(at.min()) <= int(at.max()) < least:
                raise DataError(f"positions {list(positions or ())} are not all among the {least} tokens of both texts")
            return value.index_copy(axis, at % value.shape[axis], given.index_select(axis, at % given.shape[axis]))

        return tap

    with tapped(model, {name: tap_of(name, value) for name, value in values.items()}):
        yield

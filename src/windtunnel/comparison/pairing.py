"""What two arms share, found by looking and stated in sentences: nothing is paired because it was meant to be."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from windtunnel.models.lora import trained_note
from windtunnel.runs.arms import ResolvedArm


def pairing(arms: Sequence[ResolvedArm], n_documents: int) -> tuple[str, ...]:
    """What is the same for all arms with the same seed, and what is not."""
    base = arms[0]
    what = {"line": "lines", "file": "files", "text": "blocks", "auto": "documents and blocks"}[base.store.unit]
    held_out = f"held-out text: the same {n_documents:,} {what} in every arm"
    return (held_out, *(f"{arm.name}: {_batches(base, arm)}; {_weights(base, arm)}" for arm in arms[1:]))


def _batches(base: ResolvedArm, arm: ResolvedArm) -> str:
    if base.store.folder != arm.store.folder:
        return "batches not paired (another tokenizer)"
    if base.store.corpus.weights != arm.store.corpus.weights:
        return "batches not paired (another mix), the examples of each corpus in the same order"
    if base.config.model.reads != arm.config.model.reads:
        return "batches not paired (other examples)"
    if base.config.model.context_length != arm.config.model.context_length:
        return "batches not paired (another context length)"
    if base.config.train.batch_size != arm.config.train.batch_size:
        return "the same examples in the same order, in batches of another size"
    if changed := [a.name for a in (base, arm) if a.trial and a.trial.other_batches]:
        return f"batches not paired (those of {changed[0]} are its change's)"
    if base.config.train.steps != arm.config.train.steps:
        return "the same batches as far as both go"
    return "the same batches"


def _weights(base: ResolvedArm, arm: ResolvedArm) -> str:
    """How many of the arm's parameters begin with the baseline's values."""
    model = arm.first_model()
    ours, theirs = (dict(one.named_parameters()) for one in (model, base.first_model()))
    same = sum(p.numel() for name, p in ours.items() if name in theirs and torch.equal(p, theirs[name]))
    total = sum(p.numel() for p in ours.values())
    told = f"{same:,} of its {total:,} parameters begin as the baseline's"
    return "; ".join(filter(None, (told, trained_note(model, arm.config.lora))))

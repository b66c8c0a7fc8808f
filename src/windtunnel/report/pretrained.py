"""What an import with its proof, an alteration with what it cost, and a folding say in lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from windtunnel.inspect.fold import Folded
from windtunnel.models.pretrained.proof import Proof
from windtunnel.stats.digits import number
from windtunnel.training.events import Evaluation
from windtunnel.training.imports import Altered, Imported


def models_table(models: Sequence[Mapping[str, Any]]) -> Table:
    """One row a model, from `Listed.to_dict`."""
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "size", "fetched", "licence", "what and where from"):
        table.add_column(heading, overflow="fold")
    for model in models:
        told = f"{model['description']} ({model['origin']})"
        fetched = "yes" if model["fetched"] else "no"
        table.add_row(model["name"], f"{model['bytes'] / 1e6:.0f} MB", fetched, model["licence"], told)
    return table


def import_lines(found: Imported) -> list[str]:
    """What was read, whether it is the same model as transformers', and where it is."""
    tokenizer, model, folder = found.run.tokenizer, found.run.config.model, found.run.folder
    size = model.formula_names()
    sides = ("picture_", "caption_") if model.reads == "captioned" else ("",)
    layers = " and ".join(f"{size[f'{side}n_layers']} layers x {size[f'{side}d_model']}" for side in sides)
    return [
        f"{found.origin}: {found.n_parameters:,} parameters, {layers}, context "
        f"{size['context_length']:,}; tokenizer {tokenizer.kind} with {tokenizer.vocab_size:,} tokens",
        *(f"note: {note}" for note in found.notes),
        *(
            proof_lines(found.proof)
            if found.proof
            else ["not compared with transformers; --proof does, and needs: pip install transformers"]
        ),
        f"run: {folder}",
        f"next: {_next(model.reads, folder)}",
    ]


def _next(reads: str, folder: Path) -> str:
    """What can be done with an imported run."""
    if reads == "captioned":
        return f"windtunnel search {folder} 'a picture of …' --pictures FOLDER"
    if reads == "text":
        return f"windtunnel train TABLE --from {folder}, on texts with labels"
    return f"windtunnel generate {folder} 'your prompt', or windtunnel train CORPUS --from {folder}"


def proof_lines(proof: Proof) -> list[str]:
    """Logits, loss, greedy text and ids of texts, ours and transformers'."""
    found = "the same model" if proof.holds else f"NOT the same within {proof.tolerance:g}"
    verdict = f"proof against transformers {proof.transformers_version}: {found}"
    if not proof.continuation:
        worst, lengths = max(proof.max_difference.values()), ", ".join(map(str, proof.max_difference))
        return [
            verdict,
            f"  {proof.compared}: largest difference {worst:.1e} at lengths {lengths}",
            _tokenizer_line(proof),
        ]
    n, same = len(proof.continuation), proof.continuation == proof.continuation_transformers
    worst = max(proof.max_difference.values())
    lengths = ", ".join(str(length) for length in proof.max_difference)
    losses = "not compared, the tokenizer lacks characters of its text"
    if proof.loss is not None and proof.loss_transformers is not None:
        losses = f"{number(proof.loss, 6)} and {number(proof.loss_transformers, 6)} nats per token"
    return [
        verdict,
        f"  logits: largest difference {worst:.1e} at lengths {lengths}",
        f"  loss: {losses}",
        f"  greedy continuation of {n} tokens: {'the same' if same else 'another'}",
        _tokenizer_line(proof),
    ]


def _tokenizer_line(proof: Proof) -> str:
    n_texts, difference = proof.tokenizer
    if not n_texts:
        return f"  tokenizer: not compared, {difference or 'it lacks characters of the texts'}"
    return f"  tokenizer: OTHER ids, {difference}" if difference else f"  tokenizer: the same ids on {n_texts} texts"


def altered_to_dict(altered: Altered, trained: tuple[Path, Evaluation] | None) -> dict[str, Any]:
    """An alteration as plain data for JSON."""
    return {
        "run": str(altered.run.folder),
        "before": asdict(altered.before),
        "after": asdict(altered.after),
        "trained": trained and {"run": str(trained[0]), "dev": asdict(trained[1])},
    }


def alter_lines(altered: Altered, trained: tuple[Path, Evaluation] | None) -> list[str]:
    """The loss before, after and, when it was trained further, then; and what to do next."""
    before, after, folder = altered.before.loss, altered.after.loss, altered.run.folder
    lines = [
        f"dev loss before {number(before)}, altered {number(after)} nats per token "
        f"({number(after - before, sign=True)}), on the whole dev split of {altered.before.n_tokens:,} tokens",
        f"run: {folder}",
    ]
    if trained is None:
        return [*lines, f"next: windtunnel train {altered.run.config.corpus} --from {folder} --steps 200"]
    further, evaluation = trained
    part = "" if evaluation.whole else ", on a sample of the dev split"
    lines.append(
        f"after {evaluation.step} steps more {number(evaluation.loss)} "
        f"({number(evaluation.loss - before, sign=True)} to before{part})"
    )
    return [*lines, f"trained further: {further}"]


def fold_lines(folded: Folded) -> list[str]:
    """How far the folded model differs, the loss and the parameters before and after, and where it is."""
    found, before, after = folded.agreement, folded.before.loss, folded.after.loss
    return [
        f"logits: largest difference {found.largest:.1e} over {found.n:,} predictions of the dev split; the most "
        f"probable token is the same in {found.same:,} of them",
        f"dev loss before {number(before, 6)}, folded {number(after, 6)} nats per token ({after - before:+.1e})",
        f"parameters before {folded.n_before:,}, folded {folded.n_after:,}",
        f"run: {folded.run.folder}",
    ]

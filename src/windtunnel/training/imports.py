"""Runs made of weights and not by training: imported from other programs' files, or altered.

Such a run has a corpus or none, its weights at step 0, and no steps to train; `continue_from` trains it further.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from windtunnel.config import parse
from windtunnel.errors import ConfigError, DataError
from windtunnel.files import sync_folder, temporary, write_file
from windtunnel.models import (
    CLIP,
    ClassifierConfig,
    CLIPConfig,
    EncoderConfig,
    ModelConfig,
    TransformerConfig,
    as_transformer,
)
from windtunnel.models.lora import LoraConfig
from windtunnel.models.pretrained.alter import to_grouped_queries, to_rotary, to_window
from windtunnel.models.pretrained.clip import PREPARED
from windtunnel.models.pretrained.clip_proof import compare_clip
from windtunnel.models.pretrained.huggingface import TOKENIZER_FILES, Pretrained, to_model
from windtunnel.models.pretrained.proof import Proof, compare_with_transformers
from windtunnel.models.pretrained.read import read_pretrained
from windtunnel.models.pretrained.safetensors_files import INDEX, SINGLE, list_tensors
from windtunnel.tasks import ContrastiveConfig, LanguageConfig
from windtunnel.text.corpora import open_corpus
from windtunnel.text.splits import is_labelled, labels_of
from windtunnel.text.store import TextConfig, TokenStore, prepare
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.text.vocab_files import BESIDE
from windtunnel.training import machine
from windtunnel.training.checkpoint import save_checkpoint, weights_sha256
from windtunnel.training.data import open_task
from windtunnel.training.disk import saving
from windtunnel.training.evaluate import evaluate
from windtunnel.training.events import Evaluation, Event, Saved, Stopped, to_line
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.recipes import recipe
from windtunnel.training.run import (
    METRICS,
    Run,
    TrainedModel,
    corpus_facts,
    kept_marks,
    load,
    named_corpus,
    open_run,
    resolve,
    write_run,
)
from windtunnel.training.run_config import RunConfig, Start, TrainConfig

FINE_TUNING = OptimizerConfig(lr=5e-5)
"""What an imported model is trained with unless told otherwise: the learning rate is that of transformers' Trainer."""


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere that is a run now; proof is None when transformers did not run it."""

    run: Run
    origin: str
    n_parameters: int
    notes: tuple[str, ...]
    proof: Proof | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "run": str(self.run.folder),
            "origin": self.origin,
            "n_parameters": self.n_parameters,
            "tokenizer": {"kind": self.run.tokenizer.kind, "vocab_size": self.run.tokenizer.vocab_size},
            "notes": list(self.notes),
            "proof": self.proof and self.proof.to_dict(),
        }


def import_run(
    source: Path, folder: Path, corpus: str | None = None, unit: str = "auto", proof: bool | None = None
) -> Imported:
    """Make a run in `folder` of a Hugging Face model's folder or a GGUF file, on a corpus if one is given.

    Args:
        unit: `text.unit` of the run: what a document of the corpus is, and so what a prompt begins with.
        proof: whether transformers runs the model beside ours; None is yes for a folder where it is installed, and no
            for a GGUF file, which it reads slowly.

    Raises:
        ArtifactError: when the model cannot be read whole and exactly.
        DataError: when its tokenizer is missing or cannot be used, or has no token for a character of the corpus.
        ConfigError: for an unknown unit, and when the folder for the run is taken.
        MissingExtra: when the proof is asked for and transformers is not installed.
    """
    refuse_taken(folder)
    text = parse(TextConfig, {"unit": unit})
    found, tokenizer = _read(source)
    weights, notes = found.weights, found.notes
    store = prepare(open_corpus(corpus, text.unit), text, tokenizer=tokenizer) if corpus else None
    proved = None
    if proof or (proof is None and source.is_dir() and importlib.util.find_spec("transformers")):
        model = to_model(found.config, weights)
        if isinstance(model, CLIP):
            proved = compare_clip(model, source, tokenizer)
        else:
            proved = compare_with_transformers(model, source, tokenizer)
    config = RunConfig(
        corpus=corpus or "",
        text=text if store else text.replace(tokenizer=tokenizer.kind),
        model=found.config,
        optimizer=FINE_TUNING,
        task=ContrastiveConfig() if isinstance(found.config, CLIPConfig) else LanguageConfig(),
        train=TrainConfig(steps=0),
    )
    facts = {
        "made": "imported",
        "source": {"path": str(source.resolve()), "model_type": found.origin, "sha256": _source_sha256(source)},
        "notes": notes,
        "proof": proved and proved.to_dict(),
        **found.marks.to_record(),
    }
    if store is not None:
        config = resolve(config, store)
    config = config.replace(start=Start(run=str(source.resolve()), weights_sha256=weights_sha256(weights)))
    run = create_with_weights(folder, config, weights, tokenizer, store, facts)
    return Imported(run, found.origin, sum(tensor.numel() for tensor in weights.values()), notes, proved)


def _read(source: Path) -> tuple[Pretrained, Tokenizer]:
    found = read_pretrained(source)
    if found.tokenizer is None:
        raise DataError(
            f"{source} has no tokenizer that can be read, and no text goes into a model without one; put the model's "
            f"{TOKENIZER_FILES[0]}, or vocab.json and merges.txt, beside its config.json"
        )
    return found, found.tokenizer


@dataclass(frozen=True)
class Altered:
    """A run with an altered model, and the loss on the whole dev split before and after the alteration."""

    run: Run
    before: Evaluation
    after: Evaluation
    warnings: tuple[str, ...]


def alter_run(
    run: Path, folder: Path, n_kv_heads: int | None = None, rotary: bool = False, window: int | None = None
) -> Altered:
    """Make a run in `folder` whose model is another's with fewer key heads, rotary positions or a window.

    Raises:
        ConfigError: when nothing is to be altered, the model cannot be altered so, the run has no corpus, or the folder
            for the new run is taken.
        DataError: when nothing of the corpus is held out.
    """
    if n_kv_heads is None and not rotary and window is None:
        raise ConfigError("nothing to alter; give --kv-heads N, --rotary or --window W, or several of them")
    refuse_taken(folder)
    trained = load(run)
    config, weights = as_transformer(trained.model, "alter").config, weights_of(trained)
    changed = (config, weights)
    if n_kv_heads is not None:
        changed = to_grouped_queries(*changed, n_kv_heads)
    if rotary:
        changed = to_rotary(*changed)
    if window is not None:
        changed = to_window(*changed, window)
    store = trained.run.store()
    if len(store.splits["dev"].ids) == 0:
        raise DataError(f"nothing of {trained.run.config.corpus} is held out, so the loss cannot be measured")
    task = open_task(trained.run.config, store)
    before = evaluate(trained.model, task, "dev", trained.step)
    model = to_model(*changed).to(machine.device())
    after = evaluate(model, task, "dev", 0)
    made = create_from(trained, folder, "altered", *changed, store, before, after)
    return Altered(made, before, after, trained.warnings)


def continue_from(
    run: Path, corpus: str, recipe_name: str = "auto", columns: Mapping[str, str] | None = None
) -> RunConfig:
    """The settings that train a run's newest model further: its model and tokenizer, on a corpus, from its weights.

    On texts with labels a classifier begins with the run's trunk; one of the same labels goes on as it is.

    Args:
        recipe_name: whose optimizer, schedule and training are used; `auto` takes the run's own, but decides
            precision, threads and compiling again.
        columns: of a table, as in `TextConfig`.
    """
    opened = open_run(run)
    old = opened.config
    same_corpus = named_corpus(corpus) == old.corpus
    columns = columns or (old.text.columns if same_corpus else None)
    read = open_corpus(corpus, columns=columns)
    if recipe_name == "classify" or (recipe_name == "auto" and is_labelled(read)):
        same = old.task.kind == "classification" and list(labels_of(read)) == opened.record.get("labels")
        if not same or recipe_name == "classify":
            return _classifier_from(run, old, corpus, columns, "all" if same else "trunk")
    new = old if recipe_name == "auto" else recipe(recipe_name, corpus)
    train = new.train.replace(precision="auto", compile="auto", threads=None)
    unit = old.text.unit if same_corpus else "auto"
    return RunConfig(
        corpus=corpus,
        text=old.text.replace(unit=unit, columns=columns, tokenizer=str(run.resolve() / "tokenizer.json")),
        model=old.model,
        optimizer=new.optimizer,
        schedule=new.schedule.replace(ends=()),  # it begins a training of its own
        task=new.task,
        train=train if train.steps else train.replace(steps=TrainConfig().steps),
        start=Start(run=str(run)),
    )


FINE_TUNING_RATE = 5e-4
"""Peak learning rate of a classifier that begins with a trained trunk."""


def _classifier_from(
    run: Path, old: RunConfig, corpus: str, columns: Mapping[str, str] | None, part: Literal["all", "trunk"]
) -> RunConfig:
    """The recipe `classify` with a run's trunk and tokenizer.

    Raises:
        ConfigError: for a run whose model has no trunk to begin with.
    """
    base, model = recipe("classify", corpus), old.model
    if isinstance(model, EncoderConfig):
        model = model.body
    if isinstance(model, TransformerConfig):
        shared = {"vocab_size": model.vocab_size, "context_length": model.context_length}
        model = ClassifierConfig(**shared, pool="mean", trunk=model)
    elif not isinstance(model, ClassifierConfig):
        raise ConfigError(f"{run} is a {model.family}, which has no trunk for a classifier; begin with a transformer")
    elif part == "trunk":
        model = parse(ClassifierConfig, model.model_dump(exclude_unset=True, exclude={"n_labels"}))
    return base.replace(
        text=base.text.replace(tokenizer=str(run.resolve() / "tokenizer.json"), columns=columns),
        model=model,
        optimizer=base.optimizer.replace(lr=FINE_TUNING_RATE),
        start=Start(run=str(run), part=part),
    )


def create_from(
    trained: TrainedModel,
    folder: Path,
    made: str,
    model: ModelConfig,
    weights: Mapping[str, Tensor],
    store: TokenStore,
    before: Evaluation,
    after: Evaluation,
) -> Run:
    """Write a run whose model was made of another run's; `made` says how, and the record what it was made of.

    Raises as `create_with_weights` does.
    """
    source, old = str(trained.run.folder.resolve()), trained.run.config
    facts = {
        "made": made,
        f"{made}_from": {
            "run": source,
            "step": trained.step,
            "weights_sha256": weights_sha256(trained.model.state_dict()),
            "dev": asdict(before),
        },
        **kept_marks(trained.run),
    }
    start = Start(run=source, weights_sha256=weights_sha256(weights))
    schedule, train = old.schedule.replace(ends=()), old.train.replace(steps=0)
    new = old.replace(model=model, schedule=schedule, train=train, start=start, change=None, lora=LoraConfig())
    return create_with_weights(folder, new, weights, trained.tokenizer, store, facts, [after])


def create_with_weights(
    folder: Path,
    config: RunConfig,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    store: TokenStore | None,
    facts: Mapping[str, Any],
    evaluations: Sequence[Evaluation] = (),
) -> Run:
    """Write a run that has these weights at step 0 and is finished; the folder appears whole or not at all.

    Args:
        config: resolved; its `start` tells where the weights are from.
        store: the corpus; None is a run without one.
        facts: for the record; `made` says how the weights came about.

    Raises:
        ConfigError: when the folder is taken.
        SaveError: when the disk refuses.
    """
    refuse_taken(folder)
    with saving(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with saving(folder), temporary(folder, folder=True) as room:
        staging = room / ".tmp-run"  # whose name says that it is none yet
        run = write_run(staging, config, tokenizer, {**(corpus_facts(store) if store else _NO_CORPUS), **facts})
        events: list[Event] = [
            *evaluations,
            Saved(0, "step-0"),
            Stopped(0, "finished", f"{facts['made']}, not trained"),
        ]
        lines = [to_line(event).encode() for event in events]
        saved = {
            "first_loss": None,
            "metrics_size": sum(len(line) for line in lines[: len(evaluations)]),
            "config_sha256": run.record["config_sha256"],
        }
        save_checkpoint(staging, 0, weights, {}, saved)
        write_file(staging / METRICS, b"".join(lines))
        sync_folder(staging)
        staging.rename(folder)
        sync_folder(folder.parent)
    return open_run(folder)


_NO_CORPUS = {"corpus_sha256": ""}


def weights_of(trained: TrainedModel) -> dict[str, Tensor]:
    """Its weights by name, on the CPU."""
    return {name: parameter.detach().cpu() for name, parameter in trained.model.named_parameters()}


def refuse_taken(folder: Path) -> None:
    """Raises ConfigError unless nothing is lost when a new folder is written there."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        what = "is not empty" if folder.is_dir() else "is a file"
        raise ConfigError(f"{folder} {what}; nothing is written over it: choose another folder")


def _source_sha256(source: Path) -> dict[str, str]:
    """SHA-256 of each file that an import reads, by name."""
    if source.is_file():
        return {source.name: _sha256(source)}
    folder = source
    names = {"config.json", *(entry.file.name for entry in list_tensors(folder).values())}
    if not (folder / SINGLE).exists():
        names.add(INDEX)
    own = (folder / TOKENIZER_FILES[0]).exists()
    old = {"vocab.json", "merges.txt", "encoder.json", "vocab.bpe", "vocab.txt", *BESIDE}
    names.add(PREPARED)
    names |= {TOKENIZER_FILES[0]} if own else old
    sums = {}
    for name in sorted(names):
        if (folder / name).exists():
            sums[name] = _sha256(folder / name)
    return sums


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

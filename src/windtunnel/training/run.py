"""The run folder is the truth: what the run is, the events of its training, and its checkpoints.

RUN/
    config.json       the resolved RunConfig          |
    tokenizer.json    what turns text into ids        | written before step 0,
    record.json       machine, versions, corpus       | never changed after
    manifest.json     sizes and SHA-256 of the above  |
    metrics.jsonl     every event of the training, one a line
    change.py         source of its change, to be read | when it has one, written before step 0
    step-N/           weights, optimizer state, manifest
    lock              held by the process that is training
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from windtunnel.config import differences, fingerprint, parse, to_json
from windtunnel.errors import ArtifactError, ConfigError, DataError, SaveError
from windtunnel.models import Model
from windtunnel.models.lora import adapt, merged
from windtunnel.models.pretrained.marks import marks_of
from windtunnel.tasks import METRICS as METRICS_BY_NAME
from windtunnel.text.corpora import open_corpus
from windtunnel.text.corpora.mixes import mix_text, parse_mix
from windtunnel.text.store import TokenStore, prepare
from windtunnel.text.store_build import survey
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training import machine, speed
from windtunnel.training.change import KEPT, Named, Trial, change_for, needs_change, set_up
from windtunnel.training.checkpoint import (
    Checkpoint,
    check_finite,
    load_weights,
    newest_checkpoint,
    saved_log_size,
)
from windtunnel.training.compiling import compiling_pays
from windtunnel.training.data import first_weights, open_task
from windtunnel.training.disk import MANIFEST, check, is_locked, read_files, read_manifest, saving, write_folder
from windtunnel.training.events import Evaluation, Event, read_events
from windtunnel.training.run_config import RunConfig, Start, check_family
from windtunnel.training.starts import begin, settle

METRICS = "metrics.jsonl"


class Record(BaseModel):
    """What `record.json` must state for the run to go on; the rest of it is for people."""

    corpus_sha256: str
    config_sha256: str
    random: str


@dataclass(frozen=True)
class Run:
    """A run folder whose description has been verified."""

    folder: Path
    config: RunConfig
    tokenizer: Tokenizer
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's name, with that of the folder around it for one of several seeds."""
        folder = self.folder.absolute()
        return f"{folder.parent.name}/{folder.name}" if folder.name.startswith("seed-") else folder.name

    @property
    def altered(self) -> bool:
        """Whether its model is another than its settings say, by a change in Python."""
        return self.config.change is not None and self.record.get("change", {}).get("alters_model", True)

    def events(self, *kinds: str) -> list[Event]:
        """The events of its training so far, or those of some kinds.

        Raises:
            ArtifactError: when the log was altered, or is shorter than it was when the newest checkpoint was saved.
        """
        path, saved = self.folder / METRICS, saved_log_size(self.folder)
        return read_events(path, saved, kinds) if saved or path.exists() or path.is_symlink() else []

    def store(self) -> TokenStore:
        """Its corpus as tokens.

        Raises:
            ArtifactError: when the corpus is no longer the one that the run began with.
            ConfigError: when the run was imported without one.
        """
        if not self.config.corpus:
            raise ConfigError(
                f"{self.folder} has no corpus; give evaluate one with --corpus CORPUS, or import it again with one"
            )
        corpus = open_corpus(self.config.corpus, self.config.text.unit, self.config.text.columns)
        try:
            store = prepare(corpus, self.config.text, tokenizer=self.tokenizer)
        except DataError:  # such as a character that the tokenizer did not know when the run began
            self._check_corpus(survey(corpus).sha256)
            raise
        self._check_corpus(store.sha256)
        return store

    def _check_corpus(self, sha256: str) -> None:
        if sha256 != self.record["corpus_sha256"]:
            raise ArtifactError(
                f"the corpus {self.config.corpus} has changed since {self.folder} began: its SHA-256 was "
                f"{self.record['corpus_sha256'][:12]}, is {sha256[:12]}; restore it, or train a new run"
            )


def no_checkpoint(folder: Path) -> ArtifactError:
    """What to say of a run that has not saved a model yet."""
    resume = f"train it first: windtunnel resume {folder}"
    cure = "it is being trained, wait for the first" if is_locked(folder) else resume
    return ArtifactError(f"{folder} has no checkpoint yet; {cure}")


def best_step(run: Run) -> int | None:
    """The step whose dev scores are best, by the task's first metric, then by loss, then the first; None where the last
    checkpoint is the model."""
    if run.config.train.choose == "last":
        return None
    found = [e for e in run.events("evaluation") if isinstance(e, Evaluation) and e.split == "dev"]
    if not found:
        return None
    name = next(iter(found[0].scores))
    sign = 1 if METRICS_BY_NAME[name].better == "lower" else -1
    return min(found, key=lambda e: (sign * e.scores[name], e.loss, e.step)).step


def is_run(folder: Path) -> bool:
    """Whether a folder looks like a run, also like one that lacks a file: `open_run` says so then."""
    whole = not folder.name.startswith(".tmp-")
    parts = ("record.json",), ("config.json", MANIFEST)  # an exported model has a config.json too
    return whole and any(all((folder / name).exists() for name in names) for names in parts)


def open_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        ArtifactError: when it is not a run, or one of its files was altered, naming the file.
    """
    try:
        begun = any((folder / name).exists() for name in ("config.json", "record.json", "tokenizer.json"))
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be read ({error.strerror})") from None
    if not begun:
        raise ArtifactError(f"{folder} is not a run folder; `windtunnel runs` lists those below ./runs")
    manifest = read_manifest(folder)
    files = read_files(folder, manifest)
    for name in ("config.json", "tokenizer.json", "record.json"):
        if name not in files:
            raise ArtifactError(f"{folder / MANIFEST} was not made by windtunnel: it does not list {name}")
    try:
        config = parse(RunConfig, json.loads(files["config.json"]))
        tokenizer = Tokenizer.from_json(files["tokenizer.json"].decode())
        record = json.loads(files["record.json"])
    except (ConfigError, DataError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"{folder}: its config.json, tokenizer.json or record.json cannot be used: {error}"
        ) from None
    check(Record, record, folder / "record.json")
    return Run(folder, config, tokenizer, record)


def create_run(folder: Path, config: RunConfig, store: TokenStore, change: Trial | None = None) -> Run:
    """Write a new run folder for a resolved config, or open the one that is there when it is the same run.

    Args:
        change: that of the config; its source is copied into the folder, and what was found into the record.

    Raises:
        ConfigError: when the folder holds a run with another config, listing the differences.
        SaveError: when the disk refuses.
    """
    if not is_run(folder):
        try:
            begun = config.start and Path(config.start.run)
            marks = kept_marks(open_run(begun)) if begun and is_run(begun) else {}
            facts = marks | corpus_facts(store) | ({"change": change.facts()} if change else {})
            facts |= {"speed": said} if (said := speed.said(config)) else {}
            kept = {KEPT: change.change.source.encode()} if change else {}
            return write_run(folder, config, store.tokenizer, facts, kept)
        except SaveError as error:
            code = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
            if code not in (errno.EEXIST, errno.ENOTEMPTY) or not is_run(folder):
                raise  # else another process was faster
    run = open_run(folder)
    changed = differences(run.config, config)
    if changed:
        listed = ", ".join(f"{path} was {old!r}, is now {new!r}" for path, (old, new) in changed.items())
        raise ConfigError(f"{folder} holds a run with other settings ({listed}); choose another folder with --out")
    return run


def corpus_facts(store: TokenStore) -> dict[str, Any]:
    """What a run's record says of its corpus."""
    return {
        "corpus_sha256": store.sha256,
        "tokens": {name: len(split.ids) for name, split in store.splits.items()},
        "bytes": {name: split.n_bytes for name, split in store.splits.items()},
        **({"labels": store.labels} if store.labels else {}),
    }


def kept_marks(run: Run) -> dict[str, Any]:
    """What came with a run's model from elsewhere, for the record of a run that begins with its weights."""
    return {} if (marks := marks_of(run.record)) is None else marks.to_record()


def write_run(
    folder: Path,
    config: RunConfig,
    tokenizer: Tokenizer,
    facts: Mapping[str, Any],
    kept: Mapping[str, bytes] | None = None,
) -> Run:
    """Write a new run folder with a resolved config.

    Args:
        facts: for its record, the corpus' SHA-256 among them.
        kept: further files.

    Raises:
        ConfigError: when the folder lies in a run.
        SaveError: when the disk refuses, or the folder holds other files.
    """
    if within := next((parent for parent in folder.absolute().parents if is_run(parent)), None):
        raise ConfigError(f"{folder} would be a run inside the run {within}; choose a folder outside of it with --out")
    record = {
        **machine.description(),
        **facts,
        "config_sha256": fingerprint(config),
        "random": "every draw is a function of (seed, purpose, step); no generator state is kept"
        if config.generator is None
        else f"weights, then the examples of all steps, from torch.Generator().manual_seed({config.generator} + seed)",
    }
    files = {
        **(kept or {}),
        "config.json": to_json(config).encode(),
        "tokenizer.json": tokenizer.to_json().encode(),
        "record.json": (json.dumps(record, indent=2) + "\n").encode(),
    }
    with saving(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    write_folder(folder, files, {"kind": "run"})
    return open_run(folder)


def resolve(config: RunConfig, store: TokenStore, side_by_side: int = 1) -> RunConfig:
    """The config with everything decided that was left to the machine and the corpus.

    Args:
        side_by_side: how many runs share the machine; more than one and each gets a single thread.
    """
    model, train = config.task.model(config.model), config.train
    if "vocab_size" not in model.model_fields_set:
        model = model.replace(vocab_size=store.tokenizer.vocab_size)
    elif model.vocab_size < store.tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_size {model.vocab_size} is smaller than the tokenizer's {store.tokenizer.vocab_size}; "
            "leave it out, or give at least as many"
        )
    model = config.task.sized(model, store)
    check_family(config)
    start = settle(config.start, *open_start(config.start), model, store.tokenizer) if config.start else None
    way = speed.decide(config.replace(model=model), side_by_side)
    if train.compile is True and not machine.has_compiler():
        raise ConfigError("train.compile=true needs a C++ compiler (c++, g++ or clang++); install one or leave it out")
    steps = 0 if train.freeze == "all" else train.steps  # its head is solved
    # Muon is for the whole matrices of the blocks, which LoRA freezes; it leaves all others to AdamW.
    by_adamw = config.lora.rank and config.optimizer.name == "muon"
    optimizer = config.optimizer.replace(name="adamw") if by_adamw else config.optimizer
    train = train.replace(threads=way.threads, precision=way.precision, steps=steps)
    decided = config.replace(model=model, train=train, optimizer=optimizer)
    compiled = machine.has_compiler() and compiling_pays(decided) if train.compile == "auto" else train.compile
    kind = store.tokenizer.kind if config.text.tokenizer == "auto" else config.text.tokenizer
    return decided.replace(
        corpus=named_corpus(config.corpus),
        text=config.text.replace(unit=store.unit, tokenizer=kind, **store.corpus.to_record),
        train=decided.train.replace(compile=compiled),
        start=start,
    )


def named_corpus(given: str) -> str:
    """What a resolved config calls a corpus: a path that exists is whole, and equal mixes are written alike."""
    if parts := parse_mix(given):
        return mix_text(tuple((named_corpus(name), weight) for name, weight in parts))
    return str(Path(given).resolve()) if Path(given).exists() else given


def initial_model(config: RunConfig) -> Model:
    """The model as training begins: random weights, a function of the seed, or those of the run to start from; with
    LoRA, thin matrices beside them.

    Raises:
        ArtifactError: when that run is gone, or was altered or trained further since the config was resolved.
    """
    model = first_weights(config)
    if config.start is not None:
        begin(model, config.start, open_start(config.start)[1].weights)
    return adapt(model, config.lora, config.seed)


def open_start(start: Start) -> tuple[Run, Checkpoint]:
    """The run that another begins with, and its newest weights.

    Raises:
        ArtifactError: when the run is gone, or was altered or trained further since the config was resolved.
    """
    folder = Path(start.run)
    try:
        run = open_run(folder)
        checkpoint = newest_checkpoint(folder, best_step(run))
    except ArtifactError as error:
        raise ArtifactError(f"the run to start from cannot be used: {error}") from None
    if checkpoint is None:
        raise no_checkpoint(folder)
    check_finite(folder, checkpoint.step, checkpoint.weights)
    if start.weights_sha256 not in (None, checkpoint.sha256):
        raise ArtifactError(
            f"the newest weights of {folder} have the SHA-256 {checkpoint.sha256[:12]}, and this run was to "
            f"start from {str(start.weights_sha256)[:12]}; restore them, or begin a new run with --from"
        )
    return run, replace(checkpoint, weights=merged(checkpoint.weights, run.config.model, run.config.lora))


@dataclass(frozen=True)
class TrainedModel:
    """A model as it was saved, ready to be used: in evaluation mode, in float32, what LoRA added merged into it."""

    run: Run
    model: Model
    tokenizer: Tokenizer
    step: int
    warnings: tuple[str, ...]


def load(folder: Path, change: Named | None = None) -> TrainedModel:
    """The newest verified model of a run; every file of the folder is checked.

    Args:
        change: what the run was begun with; only one whose model is altered needs it here.

    Raises:
        ConfigError: when it needs one, or is given another.
        ArtifactError: when the folder is not a run, a needed file was altered, nothing has been saved yet, or the
            weights are not finite.
    """
    run, checkpoint = newest(folder)
    warnings = list(checkpoint.warnings)
    try:
        read_events(folder / METRICS, checkpoint.facts["metrics_size"])
    except ArtifactError as error:
        warnings.append(str(error))
    model = _empty_model(run, change)
    load_weights(model, merged(checkpoint.weights, run.config.model, run.config.lora))
    model.to(machine.device()).eval()
    return TrainedModel(run, model, run.tokenizer, checkpoint.step, tuple(warnings))


def newest(folder: Path) -> tuple[Run, Checkpoint]:
    """A run and the checkpoint that is its model, as it was saved; raises ArtifactError as `load` does."""
    run = open_run(folder)
    try:
        wanted = best_step(run)
    except ArtifactError:  # the log was altered, which `load` tells
        wanted = None
    checkpoint = newest_checkpoint(folder, wanted)
    if checkpoint is None:
        raise no_checkpoint(folder)
    check_finite(folder, checkpoint.step, checkpoint.weights)
    return run, checkpoint


def _empty_model(run: Run, change: Named | None) -> Model:
    """The run's model before its weights are loaded."""
    own = change_for(run.config, run.folder, change) if change else None
    if own:
        return set_up(own, run.config, open_task(run.config, run.store()), initial_model(run.config)).model
    if run.config.change and run.altered:
        raise ConfigError(needs_change(run.config.change, run.folder))
    return run.config.model.create()

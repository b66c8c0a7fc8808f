"""Splits and the token store: what is where, what is cached, what damage and bad input say."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from patience import PATIENCE
from windtunnel.errors import ArtifactError, ConfigError, DataError, SaveError
from windtunnel.text import store_build
from windtunnel.text.corpora import open_corpus
from windtunnel.text.splits import SPLITS, document_split, split_text, text_cuts
from windtunnel.text.store import TextConfig, TokenStore, open_store, prepare
from windtunnel.text.store_build import spread_sample, survey
from windtunnel.text.tokenizers import Tokenizer, bytes_tokenizer, characters_tokenizer


@dataclass(frozen=True)
class Corpus:
    """The fields of windtunnel.text.corpora.Corpus, over a list of texts that counts its passes."""

    name: str
    unit: str
    texts: tuple[str, ...]
    passes: Counter
    description: str = "a test"
    licence: str = "none"
    origin: str = "here"
    fields: tuple[str, ...] = ("text",)
    parts: tuple[()] = ()

    def read(self) -> Iterator[str]:
        self.passes["read"] += 1
        return iter(self.texts)


def corpus(unit: str, *texts: str, name: str = "test") -> Corpus:
    return Corpus(name, unit, texts, Counter())


LINES = tuple(f"nämé {i}" for i in range(400))
FILES = tuple(f"def f{i}():\n    return {i} * 'é'\n" for i in range(200))
PROSE = "".join(f"It's line {i}, señor, isn't it?\n" for i in range(2000))
CHUNKS = tuple(PROSE[i : i + 1000] for i in range(0, len(PROSE), 1000))


def texts_of(store: TokenStore, name: str) -> list[str]:
    split = store.splits[name]
    if split.offsets is None:
        return [store.tokenizer.decode(split.ids)]
    return [store.tokenizer.decode(split.ids[a:b]) for a, b in zip(split.offsets, split.offsets[1:], strict=False)]


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "bpe", "gpt2"])
def test_lines_come_back_whole_in_their_splits(tokenizer: str, tmp_path: Path) -> None:
    store = prepare(corpus("line", *LINES), TextConfig(tokenizer=tokenizer), tmp_path)
    assert store.tokenizer.kind == tokenizer
    for name in SPLITS:
        expected = [line for line in LINES if document_split(line, 0.05, 0.05) == name]
        assert texts_of(store, name) == expected
        assert store.splits[name].n_bytes == sum(len(line.encode()) + 1 for line in expected)
        assert store.tokenizer.end_id not in store.splits[name].ids
        assert expected


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "bpe", "gpt2"])
def test_files_are_each_followed_by_the_end_mark(tokenizer: str, tmp_path: Path) -> None:
    store = prepare(corpus("file", *FILES), TextConfig(tokenizer=tokenizer), tmp_path)
    for name in SPLITS:
        expected = [text for text in FILES if document_split(text, 0.05, 0.05) == name]
        assert texts_of(store, name) == [text + "<|endoftext|>" for text in expected]
        assert store.splits[name].n_bytes == sum(len(text.encode()) for text in expected)
        assert (store.splits[name].ids == store.tokenizer.end_id).sum() == len(expected)


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "bpe", "gpt2"])
def test_running_text_is_cut_by_position(tokenizer: str, tmp_path: Path) -> None:
    store = prepare(corpus("text", *CHUNKS), TextConfig(tokenizer=tokenizer), tmp_path)
    parts = [texts_of(store, name)[0] for name in SPLITS]
    assert "".join(parts) == PROSE
    n_bytes = [store.splits[name].n_bytes for name in SPLITS]
    assert n_bytes == [len(part.encode()) for part in parts]
    assert np.allclose(np.array(n_bytes) / len(PROSE.encode()), [0.9, 0.05, 0.05], atol=1e-4)
    assert all(split.offsets is None for split in store.splits.values())
    for name, part in zip(SPLITS, parts, strict=True):
        assert store.splits[name].ids.tolist() == store.tokenizer.encode(part).tolist()
        assert isinstance(store.splits[name].ids, np.memmap)
    assert store.tokenizer.end_id == {"bpe": 0, "gpt2": 50256}.get(tokenizer)
    assert store.sha256 == hashlib.sha256(PROSE.encode()).hexdigest()


@settings(max_examples=80)
@given(
    text=st.text(min_size=1, max_size=60),
    step=st.integers(1, 9),
    dev=st.floats(0, 0.5),
    test=st.floats(0, 0.49),
)
def test_cuts_do_not_depend_on_the_chunks(text: str, step: int, dev: float, test: float) -> None:
    cuts = text_cuts(len(text.encode()), dev, test)
    chunks = [text[i : i + step] for i in range(0, len(text), step)]
    pieces = list(split_text(chunks, cuts))
    whole = {name: part for name, part, _ in split_text([text], cuts)}
    for name in SPLITS:
        assert "".join(part for split, part, _ in pieces if split == name) == whole.get(name, "")
    assert "".join(part for _, part, _ in pieces) == text
    assert all(len(part.encode()) == n_bytes for _, part, n_bytes in pieces)


def test_cuts_are_where_arithmetic_says() -> None:
    assert text_cuts(100, 0.05, 0.05) == (90, 95)
    assert text_cuts(1115394, 0.1, 0) == (1003854, 1115394)  # nanoGPT's: int(n * 0.9)


def test_documents_are_spread_by_their_fractions_and_identical_ones_stay_together() -> None:
    counts = Counter(document_split(f"document {i}", 0.1, 0.2) for i in range(20000))
    assert abs(counts["dev"] - 2000) < 4 * np.sqrt(20000 * 0.1 * 0.9)
    assert abs(counts["test"] - 4000) < 4 * np.sqrt(20000 * 0.2 * 0.8)
    # Written down, so that a change of the hash cannot silently move documents between splits of old runs.
    first = [document_split(f"document {i}", 0.3, 0.3) for i in range(8)]
    assert first == ["dev"] * 4 + ["train"] * 2 + ["dev", "test"]
    assert document_split("a", 0, 0) == "train"


@pytest.mark.parametrize("unit", ["text", "line", "file"])
@pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
def test_a_second_start_does_not_tokenize(
    unit: str, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TextConfig(tokenizer=tokenizer)
    texts = {"text": CHUNKS, "line": LINES, "file": FILES}[unit]
    first = prepare(corpus(unit, *texts), config, tmp_path)
    monkeypatch.setattr(store_build, "build", None)  # building again would be a TypeError
    again = corpus(unit, *texts)
    second = prepare(again, config, tmp_path)
    assert again.passes["read"] == 1
    assert second.folder == first.folder
    for name in SPLITS:
        assert second.splits[name].ids.tolist() == first.splits[name].ids.tolist()
        assert second.splits[name].n_bytes == first.splits[name].n_bytes
    resumed = prepare(again, config, tmp_path, tokenizer=Tokenizer.from_json(first.tokenizer.to_json()))
    assert resumed.folder == first.folder


def test_what_decides_the_content_decides_the_store(tmp_path: Path) -> None:
    configs = [
        TextConfig(tokenizer="bytes"),
        TextConfig(tokenizer="characters"),
        TextConfig(tokenizer="bpe"),
        TextConfig(tokenizer="bpe", vocab_size=300),
        TextConfig(tokenizer="bytes", dev_fraction=0.1),
        TextConfig(tokenizer="bytes", test_fraction=0.1),
    ]
    folders = [prepare(corpus("line", *LINES), config, tmp_path).folder for config in configs]
    folders.append(prepare(corpus("line", *LINES, "x"), configs[0], tmp_path).folder)
    folders.append(prepare(corpus("text", "\n".join(LINES)), configs[0], tmp_path).folder)
    assert len(set(folders)) == len(folders)
    auto = prepare(corpus("line", *LINES), TextConfig(tokenizer="auto", vocab_size=999), tmp_path)
    assert auto.folder == folders[1]


def test_documents_cannot_run_together_in_the_hash() -> None:
    hashes = [survey(corpus("line", *texts)).sha256 for texts in (("ab", "c"), ("a", "bc"), ("abc",))]
    assert len(set(hashes)) == 3
    chunked = [survey(corpus("text", *texts)).sha256 for texts in (("ab", "c"), ("a", "bc"))]
    assert set(chunked) == {hashlib.sha256(b"abc").hexdigest()}


def test_auto_chooses_by_the_corpus(tmp_path: Path) -> None:
    def kind(*arguments: str, **keywords: str) -> str:
        return prepare(corpus(*arguments, **keywords), TextConfig(), tmp_path).tokenizer.kind

    assert kind("line", *LINES) == "characters"
    assert kind("line", *LINES, name="pets") == "bpe"
    assert kind("file", *FILES) == "bpe"
    assert kind("text", PROSE) == "characters"
    assert kind("text", "".join(map(chr, range(0x4E00, 0x4E00 + 257))) * 20) == "bpe"


def test_bpe_learns_from_train_only(tmp_path: Path) -> None:
    text = "aaaa " * 900 + "zqzq " * 100
    store = prepare(corpus("text", text), TextConfig(tokenizer="bpe"), tmp_path)
    vocab = json.loads(store.tokenizer.to_json())["model"]["vocab"]
    assert "Ġaaaa" in vocab
    assert "zq" not in vocab
    assert "".join(texts_of(store, "dev")) == "zqzq " * 50


def test_the_sample_for_bpe_is_bounded_and_spread() -> None:
    texts = [f"{i:04}" for i in range(1000)]
    taken = [int(text) for text in spread_sample(texts, total=4000, budget=400)]
    assert len(taken) == 100
    assert max(np.diff(taken)) == min(np.diff(taken)) == 10
    assert list(spread_sample(texts, total=4000, budget=4000)) == texts


def test_a_tokenizer_that_is_given_is_used(tmp_path: Path) -> None:
    given = characters_tokenizer("".join(LINES) + "xyz", end=True)
    store = prepare(corpus("line", *LINES), TextConfig(tokenizer="gone.json"), tmp_path, tokenizer=given)
    assert store.tokenizer.to_json() == given.to_json()
    assert prepare(corpus("line", *LINES), TextConfig(), tmp_path, tokenizer=given).folder == store.folder
    assert prepare(corpus("line", *LINES), TextConfig(), tmp_path).tokenizer.vocab_size < given.vocab_size


def test_a_tokenizer_file_is_used(tmp_path: Path) -> None:
    bytes_tokenizer(end=True).save(tmp_path / "tokenizer.json")
    store = prepare(corpus("line", *LINES), TextConfig(tokenizer=str(tmp_path / "tokenizer.json")), tmp_path)
    assert store.tokenizer.kind == "bytes"
    assert texts_of(store, "dev") == [line for line in LINES if document_split(line, 0.05, 0.05) == "dev"]


def test_a_large_vocabulary_has_wider_ids(tmp_path: Path) -> None:
    text = "".join(map(chr, [*range(0x100, 0xD800), *range(0xE000, 0x1B000)]))
    store = prepare(corpus("text", text), TextConfig(tokenizer="characters"), tmp_path)
    assert store.splits["train"].ids.dtype == np.uint32
    assert texts_of(store, "test")[0] == text[-len(texts_of(store, "test")[0]) :]
    small = prepare(corpus("line", *LINES), TextConfig(), tmp_path)
    assert small.splits["train"].ids.dtype == np.uint16


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def spoil(path: Path) -> None:
    path.write_bytes(b"?" * path.stat().st_size)


def swap_digits(path: Path) -> None:
    """Still a good tokenizer of the same size, and another one."""
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"0":', '"?":').replace('"1":', '"0":').replace('"?":', '"1":'), "utf-8")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("train.ids.bin", truncate),
        ("dev.offsets.bin", truncate),
        ("test.ids.bin", Path.unlink),
        ("manifest.json", Path.unlink),
        ("manifest.json", truncate),
        ("tokenizer.json", spoil),
        ("tokenizer.json", swap_digits),
        ("train.offsets.bin", spoil),
    ],
)
def test_a_damaged_store_is_built_again_and_said(
    name: str, damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = prepare(corpus("line", *LINES), TextConfig(), tmp_path)
    expected = {split: texts_of(before, split) for split in SPLITS}
    damage(before.folder / name)
    with pytest.raises(ArtifactError):
        open_store(before.folder, corpus("line"))
    with caplog.at_level(logging.WARNING):
        after = prepare(corpus("line", *LINES), TextConfig(), tmp_path)
    assert "damaged and is built again" in caplog.text
    assert {split: texts_of(after, split) for split in SPLITS} == expected
    open_store(after.folder, corpus("line"))
    assert [path.name for path in after.folder.parent.iterdir()] == [after.folder.name]


@pytest.mark.parametrize("unit", ["line", "text"])
@pytest.mark.parametrize("name", ["dev.ids.bin", "train.ids.bin"])
def test_one_flipped_bit_in_the_cache_is_found_when_the_store_is_opened(
    unit: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TextConfig(tokenizer="bytes", dev_fraction=0.2)
    before = prepare(corpus(unit, *LINES), config, tmp_path)
    path = before.folder / name
    right = path.read_bytes()
    path.write_bytes(bytes([right[0] ^ 1]) + right[1:])
    with pytest.raises(ArtifactError, match=f"{name}: not what was written"):
        open_store(before.folder, corpus(unit, *LINES))
    after = prepare(corpus(unit, *LINES), config, tmp_path)
    assert "damaged and is built again" in caplog.text
    assert (after.folder / name).read_bytes() == right


def test_a_store_is_hashed_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare(corpus("line", *LINES), TextConfig(tokenizer="bytes"), tmp_path).folder
    monkeypatch.setattr("windtunnel.text.store._check_hash", lambda *_: pytest.fail("hashed again"))
    open_store(folder, corpus("line"))


def test_opening_names_the_file_with_one_flipped_bit(tmp_path: Path) -> None:
    folder = prepare(corpus("line", *LINES), TextConfig(), tmp_path).folder
    open_store(folder, corpus("line"))
    for path in sorted(folder.glob("*.bin")):
        good = path.read_bytes()
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 1
        path.write_bytes(bad)
        with pytest.raises(ArtifactError, match=path.name):
            open_store(folder, corpus("line"))
        path.write_bytes(good)
    open_store(folder, corpus("line"))


def test_every_digit_of_the_manifest_is_guarded(tmp_path: Path) -> None:
    """A digit more in `n_bytes` made ten times fewer bits per byte of the same loss."""
    folder = prepare(corpus("line", *LINES), TextConfig(tokenizer="bytes"), tmp_path).folder
    path = folder / "manifest.json"
    right = path.read_bytes()
    for place in [i for i, byte in enumerate(right) if chr(byte).isdigit()]:
        path.write_bytes(right[:place] + (b"1" if right[place : place + 1] != b"1" else b"2") + right[place + 1 :])
        with pytest.raises(ArtifactError, match="manifest"):
            open_store(folder, corpus("line"))


def test_a_store_of_an_older_version_is_built_again_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TextConfig(tokenizer="bytes")
    path = prepare(corpus("line", *LINES), config, tmp_path).folder / "manifest.json"
    right = path.read_text()
    old = {key: value for key, value in json.loads(right).items() if key != "own_sha256"}
    old["splits"]["dev"]["n_bytes"] *= 10
    path.write_text(json.dumps(old, indent=2))
    prepare(corpus("line", *LINES), config, tmp_path)
    assert "is built again" in caplog.text
    assert "does not state the SHA-256 of its content: an older version wrote it" in caplog.text
    assert path.read_text() == right


@pytest.mark.parametrize("name", ["manifest.json", "dev.ids.bin", "tokenizer.json", "train.offsets.bin"])
def test_a_pipe_or_a_device_in_the_cache_is_not_read(name: str, tmp_path: Path) -> None:
    """A pipe would be waited for, and /dev/zero never ends."""
    config = TextConfig(tokenizer="bytes")
    folder = prepare(corpus("line", *LINES), config, tmp_path).folder
    for put in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (folder / name).unlink()
        put(folder / name)
        with pytest.raises(ArtifactError, match=f"{name} is not a regular file"):
            open_store(folder, corpus("line"))
        assert texts_of(prepare(corpus("line", *LINES), config, tmp_path), "dev")


def test_a_store_of_another_corpus_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TextConfig(tokenizer="bytes")
    right = prepare(corpus("line", *LINES), config, tmp_path)
    wrong = prepare(corpus("line", *reversed(LINES), "one more"), config, tmp_path)
    expected = texts_of(right, "train")
    shutil.rmtree(right.folder)
    wrong.folder.rename(right.folder)
    assert texts_of(prepare(corpus("line", *LINES), config, tmp_path), "train") == expected
    assert "holds another corpus" in caplog.text


def build_in_process(folder: str, start: float, results: multiprocessing.Queue) -> None:
    time.sleep(max(0.0, start - time.time()))
    store = prepare(corpus("line", *LINES), TextConfig(tokenizer="bpe"), Path(folder))
    results.put([store.folder.name, [texts_of(store, name) for name in SPLITS]])


def test_processes_that_build_the_same_store_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (str(tmp_path), time.time() + 0.3, results)
    workers = [context.Process(target=build_in_process, args=arguments) for _ in range(4)]
    for worker in workers:
        worker.start()
    answers = [results.get(timeout=PATIENCE) for _ in workers]
    for worker in workers:
        worker.join(timeout=PATIENCE)
    assert all(answer == answers[0] for answer in answers)
    (folder,) = (tmp_path / "tokens").iterdir()
    assert folder.name == answers[0][0]
    open_store(folder, corpus("line"))


def test_the_process_that_renames_second_takes_the_first_one_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(corpus("line", *LINES), TextConfig(), tmp_path / "first")
    rename = Path.rename

    def rename_late(self: Path, target: Path) -> Path:
        shutil.copytree(first.folder, target)  # somebody else comes between the look and the rename
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    second = prepare(corpus("line", *LINES), TextConfig(), tmp_path / "second")
    assert texts_of(second, "dev") == texts_of(first, "dev")
    assert list(second.folder.parent.iterdir()) == [second.folder]


@pytest.mark.parametrize(
    ("unit", "texts", "config", "words"),
    [
        ("line", ("one", "two"), TextConfig(dev_fraction=0.01), "too small"),
        ("text", ("abc",), TextConfig(), "nothing is left for dev"),
        ("text", ("a",), TextConfig(dev_fraction=0.9, test_fraction=0), "nothing is left for train"),
        ("line", (), TextConfig(), "holds no text"),
        ("text", ("",), TextConfig(), "holds no text"),
    ],
)
def test_a_corpus_that_is_too_small_is_refused(
    unit: str, texts: tuple[str, ...], config: TextConfig, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        prepare(corpus(unit, *texts), config, tmp_path)
    assert not list(tmp_path.glob("tokens/*"))


@pytest.mark.parametrize(
    ("unit", "texts", "advised"),
    [
        ("text", ["abc"], ["dev_fraction=0.3"]),
        ("text", ["a"], []),
        ("line", ["one\n" * 30], ["unit=text"]),
        ("line", ["one\ntwo\nthree\nfour\nfive\n" * 30], ["dev_fraction=0.2", "unit=text"]),
        ("file", ["".join(f"{i}\n" for i in range(50)), "b"], ["dev_fraction=0.5", "unit=line"]),
        ("file", ["a", "a"], []),
        ("file", ["a", "b"], ["dev_fraction=0.3"]),
    ],
)
def test_the_advice_for_a_corpus_that_is_too_small_applies(
    unit: str, texts: list[str], advised: list[str], tmp_path: Path
) -> None:
    (tmp_path / "corpus").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "corpus" / f"{number}.txt").write_text(text)
    given = str(tmp_path / "corpus" / "0.txt") if len(texts) == 1 else str(tmp_path / "corpus")
    config = TextConfig(unit=unit, dev_fraction=0.01)
    with pytest.raises(DataError, match=r"too small to be split: .*; give more text") as caught:
        prepare(open_corpus(given, unit), config, tmp_path)
    assert re.findall(r"--set text\.(\S+?)(?:,|$)", str(caught.value)) == advised
    for change in advised:
        name, value = change.split("=")
        cured = TextConfig.model_validate({**config.model_dump(), name: value if name == "unit" else float(value)})
        store = prepare(open_corpus(given, cured.unit), cured, tmp_path)
        assert all(len(store.splits[name].ids) for name in ("train", "dev"))


def test_empty_dev_and_test_are_fine_when_asked_for(tmp_path: Path) -> None:
    config = TextConfig(dev_fraction=0, test_fraction=0)
    for unit in ("text", "line"):
        store = prepare(corpus(unit, "a", "b"), config, tmp_path)
        assert [len(store.splits[name].ids) for name in SPLITS] == [2, 0, 0]


@pytest.mark.parametrize("fractions", [(-0.1, 0), (0, 1), (0.5, 0.5), (1.5, 0)])
def test_impossible_fractions_are_refused(fractions: tuple[float, float]) -> None:
    with pytest.raises(ValidationError):
        TextConfig(dev_fraction=fractions[0], test_fraction=fractions[1])


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean characters"):
        prepare(corpus("line", *LINES), TextConfig(tokenizer="charcters"), tmp_path)
    with pytest.raises(ConfigError, match=r"text\.unit is file but test was opened by line"):
        prepare(corpus("line", *LINES), TextConfig(unit="file"), tmp_path)
    with pytest.raises(ConfigError, match="end mark"):
        prepare(corpus("line", *LINES), TextConfig(), tmp_path, tokenizer=bytes_tokenizer(end=False))


@pytest.mark.parametrize("unit", ["text", "line", "file"])
def test_a_character_that_a_given_tokenizer_lacks_is_found(unit: str, tmp_path: Path) -> None:
    given = characters_tokenizer("".join(LINES), end=True)
    place = "in the MiB before byte" if unit == "text" else f"{unit} 8"
    with pytest.raises(DataError, match=rf"test, {place}.*'ß' \(U\+00DF\)"):
        prepare(corpus(unit, *LINES[:7], "nämß", *LINES), TextConfig(), tmp_path, tokenizer=given)
    assert not list(tmp_path.glob("tokens/*"))


def test_a_corpus_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Growing(Corpus):
        def read(self) -> Iterator[str]:
            self.passes["read"] += 1
            return iter([*self.texts, *LINES[: self.passes["read"]]])

    with pytest.raises(DataError, match="changed while it was read"):
        prepare(Growing("grows", "line", LINES, Counter()), TextConfig(), tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a file where the folder should be")
    with pytest.raises(SaveError, match=r"cannot write the token store.*WINDTUNNEL_CACHE"):
        prepare(corpus("line", *LINES), TextConfig(), tmp_path)


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "there"))
    store = prepare(corpus("line", *LINES), TextConfig())
    assert store.folder.parent == tmp_path / "there" / "tokens"


BUILDER = """
import sys
from pathlib import Path
from windtunnel.text import store_build
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import TextConfig, prepare
def wait(folder, *rest):
    (folder / "train.ids.bin").write_bytes(b"half")
    print(flush=True)
    sys.stdin.read()
store_build._write = wait
prepare(open_corpus(sys.argv[1], "line"), TextConfig(tokenizer="bytes"), Path(sys.argv[2]))
"""


def test_what_a_killed_build_left_is_cleared_by_the_next_and_a_living_one_is_let_be(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(LINES))
    command = [sys.executable, "-c", BUILDER, str(names), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"\n"
        first = prepare(corpus("line", *LINES), TextConfig(tokenizer="bytes"), tmp_path).folder
        (half,) = (tmp_path / "tokens").glob(".tmp-*")
        builder.kill()
    assert half.exists()
    second = prepare(corpus("line", *LINES), TextConfig(tokenizer="characters"), tmp_path).folder
    assert {*(tmp_path / "tokens").iterdir()} == {first, second}

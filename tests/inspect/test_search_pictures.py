"""Search by words: the best pictures with their numbers, an index that reads only new pictures, pages and errors."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from shapes import NAMES, Shapes, draw_shapes
from windtunnel.config import override
from windtunnel.errors import ConfigError, DataError
from windtunnel.inspect import picture_index
from windtunnel.inspect.picture_index import index_folder
from windtunnel.inspect.search import open_gallery, search
from windtunnel.library.model import Model
from windtunnel.report.search import about_lines, first_line, search_dict, search_page
from windtunnel.text.corpora.cache import cache_folder
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load

SETTINGS = [
    "train.threads=1", "train.precision=fp32", "train.compile=false", "text.tokenizer=bpe", "model.picture.size=16",
    "model.picture.widths=[16, 32]", "model.caption.d_model=32",
    "model.d_shared=32", "train.batch_size=32", "train.eval_every=150", "optimizer.lr=0.005", "train.steps=150",
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on shapes whose captions are the names of their files."""
    root = tmp_path_factory.mktemp("search")
    photos = draw_shapes(root / "photos", NAMES)
    list(fit(override(recipe("clip", str(photos)), SETTINGS), root / "run"))
    return load(root / "run")


def test_scores_are_those_of_the_model_and_shares_are_their_softmax(trained):
    gallery = open_gallery(trained)
    found = search(trained, "small  red circle", gallery, top=5)
    assert gallery.of == "the test split of photos"
    store = trained.run.store()
    assert set(gallery.names) == {store.pictures[i] for i in store.splits["test"].pictures}
    from windtunnel.tasks.vectors import captions_of, pictures_of

    drawn = np.stack([store.corpus.pictures.draw(name, 16) for name in gallery.names])
    with torch.no_grad():
        read = captions_of(trained.model.config, trained.tokenizer, ["small red circle"])
        logits = trained.model(pictures_of(trained.model.config, drawn), **read)[0, 0].double()
    order = logits.argsort(descending=True)[:5].tolist()
    assert [hit.name for hit in found.hits] == [gallery.names[i] for i in order]
    assert [hit.score for hit in found.hits] == pytest.approx(logits[order].tolist(), abs=1e-4)
    assert [hit.share for hit in found.hits] == pytest.approx(logits.softmax(0)[order].tolist(), abs=1e-5)
    assert found.hits[0].cosine == pytest.approx(found.hits[0].score / found.scale)
    assert found.hits[0].caption == found.hits[0].name.removesuffix(".png").replace("_", " ")


def test_a_word_counts_what_the_score_loses_without_it(trained):
    gallery = open_gallery(trained)
    found = search(trained, "large blue square", gallery)
    best = gallery.names.index(found.hits[0].name)
    for i, (word, falls) in enumerate(found.words):
        assert word == ["large", "blue", "square"][i]
        rest = " ".join(w for w in ["large", "blue", "square"] if w != word)
        without = search(trained, rest, gallery, top=len(gallery.names))
        [score] = [hit.score for hit in without.hits if hit.name == gallery.names[best]]
        assert falls == pytest.approx(found.hits[0].score - score, abs=1e-4)
    assert search(trained, "blue", gallery).words == ()


def test_the_right_pictures_of_a_folder_come_first(trained, tmp_path):
    """Every colour is found first among its own form and size, more often than not: chance is one in eight."""
    folder = draw_shapes(tmp_path / "mine", [name for name in NAMES if name.endswith("circle") and "large" in name])
    gallery = open_gallery(trained, folder)
    names = [name for name in NAMES if name.endswith("circle") and "large" in name]
    right = [search(trained, name, gallery).hits[0].name == f"{name.replace(' ', '_')}.png" for name in names]
    assert len(right) == 8
    assert sum(right) >= 5


def test_words_that_training_never_had_are_said_to_be_so(trained):
    found = search(trained, "Red coral, red SQUARE coral", open_gallery(trained))
    assert found.new_words == ("coral",)
    assert any("in no caption that this run was trained on: coral;" in line for line in about_lines(found))
    assert search(trained, "Red square", open_gallery(trained)).new_words == ()


def test_a_folder_is_searched_without_the_captions_of_training(trained, tmp_path):
    """They may be elsewhere by now, and an imported run has none."""
    folder = draw_shapes(tmp_path / "mine", NAMES[:2])
    away = replace(trained, run=replace(trained.run, config=trained.run.config.replace(corpus=str(tmp_path / "gone"))))
    found = search(away, "red", open_gallery(away, folder))
    assert found.new_words is None
    assert any("whether training had these words is not known" in line for line in about_lines(found))


def test_a_long_text_is_said_to_be_cut(trained):
    gallery = open_gallery(trained)
    assert search(trained, "red square " * 400, gallery).cut
    assert not search(trained, "red square", gallery).cut


class Counted:
    """How many pictures the model reads."""

    def __init__(self, monkeypatch):
        self.n, real = 0, picture_index.encoded
        monkeypatch.setattr(picture_index, "encoded", lambda model, read: self.count(real, model, read))

    def count(self, real, model, read):
        self.n += len(read)
        return real(model, read)


def test_only_new_pictures_are_read_again(trained, tmp_path, monkeypatch):
    counted = Counted(monkeypatch)
    folder, seen = draw_shapes(tmp_path / "mine", NAMES[:70]), []
    first = index_folder(trained, folder, lambda done, n: seen.append((done, n)))
    assert (first.n_new, counted.n, seen) == (70, 70, [(64, 70), (70, 70)])
    again = index_folder(trained, folder)
    assert (again.n_new, counted.n) == (0, 70)
    assert np.array_equal(again.vectors, first.vectors)
    draw_shapes(folder, NAMES[70:72])
    other = folder / f"{NAMES[0].replace(' ', '_')}.png"
    Image.fromarray(Shapes(grey=True).draw(NAMES[0], 32)).save(other)
    changed = index_folder(trained, folder)
    assert (changed.n_new, counted.n, len(changed.names)) == (3, 73, 72)
    at = changed.names.index(other.name)
    assert not np.allclose(changed.vectors[at], first.vectors[first.names.index(other.name)])


def test_a_picture_is_known_by_its_content_wherever_it_lies(trained, tmp_path, monkeypatch):
    folder = draw_shapes(tmp_path / "mine", NAMES[:5])
    first = index_folder(trained, folder)
    counted = Counted(monkeypatch)
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    (copy / "deeper").mkdir()
    shutil.copyfile(next(iter(copy.glob("*.png"))), copy / "deeper" / "same.png")
    found = index_folder(trained, copy)
    assert (counted.n, len(found.names)) == (0, 6)
    assert np.array_equal(found.vectors[[name in first.names for name in found.names]], first.vectors)
    os.utime(copy / first.names[0], (1, 1))
    assert index_folder(trained, copy).n_new == 0


def test_other_weights_have_another_index_and_a_damaged_one_is_made_again(trained, tmp_path):
    folder = draw_shapes(tmp_path / "mine", NAMES[:5])
    first = index_folder(trained, folder)
    [kept] = (cache_folder() / "features").glob("pictures-*")
    for damage in (b"", kept.read_bytes()[:-7], safetensors.numpy.save({"vectors": np.zeros((1, 3), np.float32)})):
        kept.write_bytes(damage)
        again = index_folder(trained, folder)
        assert (again.n_new, again.names) == (5, first.names)
        assert np.allclose(again.vectors, first.vectors, atol=1e-6)
    other = load(trained.run.folder)
    with torch.no_grad():
        other.model.picture_projection.weight.mul_(torch.linspace(0.5, 2, 32)[:, None])
    assert index_folder(other, folder).n_new == 5


def test_what_was_read_before_an_interruption_is_kept(trained, tmp_path):
    folder = draw_shapes(tmp_path / "mine", NAMES)

    def stop(done, n):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_folder(trained, folder, stop)
    assert index_folder(trained, folder).n_new == len(NAMES) - picture_index.AT_ONCE


def test_a_damaged_picture_is_left_out_and_named(trained, tmp_path):
    folder = draw_shapes(tmp_path / "mine", NAMES[:2])
    (folder / "bad.png").write_bytes(b"no picture")
    whole = (folder / f"{NAMES[0].replace(' ', '_')}.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    found = search(trained, "red", open_gallery(trained, folder))
    assert len(found.hits) == 2
    told = "\n".join(about_lines(found))
    assert "bad.png: no picture, whatever its name says" in told
    assert "half.png" in told
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no picture in .*mine can be read; the first: .*bad\.png"):
        open_gallery(trained, folder)


def test_the_page_holds_its_pictures_and_loads_nothing(trained, tmp_path):
    folder = draw_shapes(tmp_path / "mine", NAMES[:4])
    Image.fromarray(Shapes().draw(NAMES[4], 32)).save(folder / "<b>&.png")
    found = search(trained, "<i>red</i> square", open_gallery(trained, folder), top=5)
    page = search_page(found)
    assert page.count('src="data:image/png;base64,') == page.count("<img ") == 5
    assert "http:" not in page
    assert "https:" not in page
    assert "<i>" not in page
    assert "<b>" not in page
    assert "img-src data:" in page
    data = search_dict(found)
    assert json.loads(json.dumps(data)) == data
    assert (len(data["hits"]), data["gallery"]["n"]) == (5, 5)
    own = search(trained, "red", open_gallery(trained))
    assert first_line(own).startswith(f"red: the first 8 of {len(own.gallery.names)} pictures, the test split of")


def test_python_searches_too(trained, tmp_path):
    folder = draw_shapes(tmp_path / "mine", NAMES[:6])
    found = Model(trained).search("red square", folder, top=3)
    assert len(found.hits) == 3
    assert found.hits == search(trained, "red square", open_gallery(trained, folder), 3).hits


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"folder": "nothing"}, DataError, "is no folder; expected one with pictures"),
        ({"folder": "."}, DataError, "holds no pictures; expected files that end in .jpg"),
        ({"split": "nope"}, ConfigError, "nothing in a split 'nope'; it has train"),
    ],
)
def test_bad_input_is_told_with_its_cure(trained, tmp_path, how, error, message):
    how = {**how, "folder": tmp_path / how["folder"]} if "folder" in how else how
    with pytest.raises(error, match=message):
        open_gallery(trained, **how)


def test_an_empty_text_and_another_family_are_refused(trained, tmp_path):
    with pytest.raises(ConfigError, match="text to search for is empty"):
        search(trained, " ", open_gallery(trained))
    config = override(recipe("tiny", "names"), ["train.steps=1", "train.sample_tokens=0", "train.threads=1"])
    list(fit(config, tmp_path / "words"))
    with pytest.raises(ConfigError, match="is a transformer, and finds no pictures"):
        open_gallery(load(tmp_path / "words"))


def test_logits_of_one_text_are_refused_with_what_to_ask_instead(trained):
    with pytest.raises(ConfigError, match=r"this clip reads pictures and captions; ask it by search\(words\)$"):
        Model(trained).logits("red square")

"""What augmentation does to pictures is what training sees: of a seed, an epoch and a picture."""

import numpy as np
import pytest

from shapes import draw_shapes
from windtunnel.config import override
from windtunnel.errors import ArtifactError, ConfigError, DataError
from windtunnel.inspect.explain_augmentation import explain_augmentation
from windtunnel.library.settings import run_or_corpus
from windtunnel.report.augmentation import augmentation_dict, augmentation_figure, augmentation_page, augmentation_parts
from windtunnel.text.batches import batch
from windtunnel.training.data import open_store, open_task, train_examples
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe
from windtunnel.training.run import resolve

QUICK = ["text.tokenizer=bpe", "model.picture.size=16", "model.picture.widths=[8]", "train.batch_size=16"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    return str(draw_shapes(tmp_path / "photos", size=16))


@pytest.mark.parametrize("more", [[], ["train.n_examples=20"]])
@pytest.mark.parametrize("step", [1, 4])
def test_the_pictures_are_those_of_the_batch_of_a_step(photos, step, more):
    config, run = run_or_corpus(photos, [*QUICK, *more])
    assert run is None
    found = explain_augmentation(config, pictures=3, draws=2, step=step, seed=5)
    store = open_store(config)
    config = resolve(config, store)
    source = train_examples(config, open_task(config, store))
    seen = batch(source, 16, 5, step - 1).inputs["pictures"][:3]
    epoch, at = divmod((step - 1) * 16, len(source))
    assert at + 3 <= len(source)
    assert found.epochs == (epoch, epoch + 1)
    assert np.array_equal(found.changed[:, 0], (seen * 255).round().byte().permute(0, 2, 3, 1).numpy())
    assert not np.array_equal(found.changed[:, 0], found.changed[:, 1])
    for name, caption, plain in zip(found.names, found.captions, found.plain, strict=True):
        assert caption == name.removesuffix(".png").replace("_", " ")
        assert np.array_equal(plain, store.corpus.pictures.draw(name, 16))


def test_without_augmentation_nothing_changes(photos):
    off = [f"task.augment.{name}=0" for name in ("shift", "scale", "rotate", "colour")]
    found = explain_augmentation(*run_or_corpus(photos, [*QUICK, *off]), pictures=2, draws=3)
    assert all(np.array_equal(found.changed[:, i], found.plain) for i in range(3))
    assert [row[1] for row in augmentation_parts(found)[1].rows] == ["0.0 %"] * 2


def test_the_page_and_the_figure_show_every_picture(photos):
    found = explain_augmentation(*run_or_corpus(photos, QUICK), pictures=2, draws=3)
    page = augmentation_page(found)
    assert page.count('src="data:image/png;base64,') == 2 * (1 + 3)
    assert "img-src data:" in page
    assert len(augmentation_figure(found).axes) == 2 * (1 + 3)
    assert augmentation_dict(found)["settings"]["rotate"] == 11.5  # the recipe's


def test_what_changes_no_picture_is_refused_with_its_cure(photos):
    with pytest.raises(ConfigError, match=r"task.kind=language reads no pictures; give emoji"):
        explain_augmentation(*run_or_corpus("names"))
    with pytest.raises(ConfigError, match=r"computed once.*--set model.picture.kind=convolutional"):
        explain_augmentation(*run_or_corpus(photos, ["model.picture.kind=vectors"]))
    with pytest.raises(DataError, match="no corpus or path 'nowhere'"):
        run_or_corpus("nowhere")


def test_a_damaged_run_is_told_and_not_taken_for_a_corpus(photos, tmp_path):
    """Its folder could be read as a text."""
    quick = [*QUICK, "train.steps=1", "train.threads=1", "train.compile=false"]
    list(fit(override(recipe("auto", photos), quick), tmp_path / "run"))
    config, run = run_or_corpus(str(tmp_path / "run"))
    assert config == run.config
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ArtifactError, match=r"config\.json was altered"):
        run_or_corpus(str(tmp_path / "run"))

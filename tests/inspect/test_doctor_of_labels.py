"""The doctor on labelled texts: a label is guessed by how often it occurs, and nothing is said of tokens."""

import math

import pytest

from windtunnel.config import override
from windtunnel.inspect.doctor.exam import measure
from windtunnel.inspect.doctor.subject import recipe_subject
from windtunnel.report.doctor import measurements
from windtunnel.report.doctor_figures import training_figure
from windtunnel.training.recipes import recipe

SMALL = [
    "model.trunk.n_layers=1", "model.trunk.d_model=8", "model.trunk.n_heads=2", "model.context_length=8",
    "train.batch_size=8", "train.threads=1", "text.tokenizer=characters",
]  # fmt: skip


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    path = tmp_path_factory.mktemp("labelled") / "texts.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{'rare' if i % 4 == 0 else 'often'}\n" for i in range(200)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINDTUNNEL_CACHE", str(path.parent / "cache"))
        return measure(recipe_subject("classify", override(recipe("classify", str(path)), SMALL)), 3)


def test_a_label_costs_what_its_share_of_train_says(exam):
    """A quarter of the texts of each split has one label, three quarters the other."""
    assert exam.fit.unigram.estimate == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75), abs=0.01)
    assert exam.initial.blind == pytest.approx(math.log(2))


def test_no_number_and_no_axis_of_labels_is_said_to_be_of_tokens(exam):
    rows = dict(measurements(exam))
    assert "label frequencies" in rows
    assert "a blind guess = 0.6931" in rows["loss before training"]
    figure = training_figure(exam)
    words = [axes.get_ylabel() + axes.get_xlabel() for axes in figure.axes]
    words += [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    words += [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert any("nats per text" in word for word in words)
    assert [word for word in words if "token" in word or "ln V" in word] == []

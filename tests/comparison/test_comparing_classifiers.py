"""Which score decides between classifiers."""

from windtunnel.comparison.judging import metric_of
from windtunnel.comparison.plan import make_plan
from windtunnel.config import override
from windtunnel.runs.arms import Arm
from windtunnel.training.recipes import recipe


def test_accuracy_decides_also_between_tokenizers(tmp_path):
    """Texts are counted, not tokens: both arms are judged on the same targets."""
    table = tmp_path / "texts.tsv"
    table.write_text("text\tlabel\n" + "".join(f"a text {i}\t{'ab'[i % 2]}\n" for i in range(80)))
    base = recipe("auto", str(table))
    arms = [Arm(kind, override(base, [f"text.tokenizer={kind}", "train.steps=1"])) for kind in ("bytes", "characters")]
    plan = make_plan(arms, 4, root=tmp_path)
    assert plan.grid.arms[0].store.folder != plan.grid.arms[1].store.folder
    assert metric_of(plan).name == "accuracy"
    assert metric_of(plan).better == "higher"

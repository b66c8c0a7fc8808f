"""windtunnel scale: anybody's points, the report, the forecast of a study, and input that cannot be used."""

import json

import numpy as np
import pytest

from windtunnel.config import override
from windtunnel.scaling.points import read_points, write_points
from windtunnel.scaling.simulate import Law, simulate
from windtunnel.scaling.study import Asked, open_base, study_folder
from windtunnel.training.disk import sealed
from windtunnel.training.recipes import recipe

LAW = Law.through(1e11, 3e4)
BUDGETS = [1e10 * 10 ** (i / 2) for i in range(4)]


@pytest.fixture
def points(tmp_path):
    sizes = [LAW.optimum(c) * np.geomspace(1 / 4, 4, 5) for c in BUDGETS]
    path = tmp_path / "mine.csv"
    write_points(simulate(LAW, sizes, BUDGETS, (3, 3, 1, 1), 0.01, np.random.default_rng(1)), path)
    return path


def test_points_are_fitted_and_the_folder_that_is_written_is_a_study(command_line, points, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "study"
    code, out, err = command_line("scale", "fit", points, "--samples", "200", "--out", folder)
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("1e+1")}
    assert set(rows) == {"1e+10", "1e+11"}  # and no row is broken at 80 columns
    assert rows["1e+10"][1] == "15"
    assert rows["1e+10"][2].startswith(("10.", "11."))
    assert rows["1e+10"][2].endswith("k")
    assert "At 3.16e+12 FLOPs, 1.0 decades beyond the largest budget, the best model has" in out
    assert "The exponent of N* is 0.4" in out
    written = {path.name for path in folder.iterdir()}
    assert written == {f"{n}.{e}" for n in ("isoflop", "optimum", "loss") for e in ("png", "svg")} | {
        "points.csv", "scaling.json", "report.html",
    }  # fmt: skip
    assert "mine" in (folder / "report.html").read_text()
    assert len(read_points(folder / "points.csv")) == 40

    assert (
        command_line("scale", "fit", folder, "--samples", "200")[1]
        == command_line("scale", "fit", folder / "points.csv", "--samples", "200")[1]
    )
    code, out, _ = command_line("scale", folder, "--predict", "1e13", "--predict", "1e14", "--samples", "200", "--json")
    assert "At 1e+08 FLOPs, 2.0 decades below the smallest" in command_line("scale", folder, "--predict", "1e8")[1]
    found = json.loads(out)
    assert code == 0
    assert [f["compute"] for f in found["forecasts"]] == [1e13, 1e14]
    assert found["forecasts"][1]["decades"] == pytest.approx(2.5)
    n = found["forecasts"][0]["parameters"]
    assert n["low"] < LAW.optimum(1e13) < n["high"]
    assert len(found["exponents_by_choice"]) == 2
    assert found["refusals"] == []


def test_what_is_refused_is_said_and_the_figures_are_drawn_without_it(command_line, tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("n,c,loss\n" + "".join(f"{n},1e9,{3 - n / 1e4}\n" for n in (1000, 2000, 3000, 4000)))
    code, out, _ = command_line("scale", "fit", path, "--out", tmp_path / "out")
    assert code == 0
    assert "Refused: the parabola at 1e+09 FLOPs." in out
    assert "no size is forecast: its line was refused" in out
    assert "D = C / 6N is assumed" in out
    assert "Refused" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["fit"], 2, "name a file of points"),
        (["fit", "none.csv"], 3, "none.csv cannot be read"),
        (["nothing-here"], 3, "nothing-here"),
        (["nothing-here", "points.csv"], 2, "comes after `fit`"),
        (["fit", "POINTS", "--predict", "-1"], 2, "expected a number from 1e-09 to 1e+40"),
        (["names", "--hold-out-seeds", "4"], 2, "add --hold-out, or leave it out"),
        (["POINTS", "--predict", "1e15"], 2, "holds points and no text: to fit them, windtunnel scale fit"),
        (["fit", "POINTS", "--size", "all_parameters"], 2, "no such column"),
        (["fit", "POINTS", "--compute", "tokens"], 2, "flops or 6nd"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(command_line, points, words, code, said):
    words = [points if word == "POINTS" else word for word in words]
    found, out, err = command_line("scale", *words)
    assert (found, out) == (code, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_study_is_planned_before_anything_is_trained(command_line, tmp_path):
    corpus, root = tmp_path / "words.txt", tmp_path / "runs"
    corpus.write_text("".join(chr(97 + i * i * 7919 % 26) for i in range(200_000)))
    changes = ["model.context_length=4", "train.batch_size=8", "train.threads=1"]
    folder = study_folder(open_base(override(recipe("small", str(corpus)), changes)), Asked(600), root)
    folder.mkdir(parents=True)
    pace = {"steps": [[1e5, 1e-3], [1e9, 1e-1]], "overhead": 3.0, "at_once": 2}
    (folder / "study.json").write_bytes(sealed({"pace": pace, "minutes_include_hold_out": 1}))
    sets = [f"--set={one}" for one in changes]
    ask = ["scale", corpus, *sets, "--repeat-data", "--hold-out", "--minutes", 600, "--out", root, "--dry-run"]
    code, out, err = command_line(*ask, "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert 0.8 * 600 < plan["minutes"] <= 600
    assert plan["minutes_include_hold_out"] is True
    assert [len(budget["parameters"]) for budget in plan["budgets"]] == [5] * 4
    assert "600 given, the hold-out's" in err
    assert "expected with seeds that differ by 0.01 nats" in err
    assert list(root.iterdir()) == [folder]  # and no run beside it
    code, _, err = command_line("scale", folder)
    assert (code, "has no points.csv yet" in err) == (2, True)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["names", "--recipe", "mlp"], "the family mlp has no dial for its size"),
        (["no-such-corpus"], "no-such-corpus"),
        (["names", "--budgets", "2"], "budgets"),
    ],
)
def test_what_cannot_be_studied_is_told(command_line, wrong, told):
    code, _, err = command_line("scale", *wrong)
    assert code in (2, 3)
    assert told in err


def test_options_of_training_are_refused_where_points_are_fitted(command_line, points):
    code, _, err = command_line("scale", "fit", points, "--minutes", "30", "--hold-out")
    assert code == 2
    assert "--minutes, --hold-out: of runs that are trained" in err

"""`windtunnel settings`, the page made of it, and the settings that a run is asked for by short forms and by file."""

import json
from pathlib import Path

import pytest

from windtunnel.config import flatten, kinds_of
from windtunnel.library.reference import as_markdown, settings_reference
from windtunnel.models import FAMILIES
from windtunnel.training.recipes import tiny
from windtunnel.training.run_config import RunConfig

ROOT = Path(__file__).parents[2]


PARTS = ("encoder", "picture", "caption")
"""Parts of a model that are told setting by setting."""


def test_every_setting_of_every_kind_is_told_with_its_meaning():
    told = {(of, one.path) for one in settings_reference() for of in one.of or ("any",)}
    for family, kind in FAMILIES.items():
        parts = {name for name, field in kind.model_fields.items() if kinds_of(field.annotation) and name in PARTS}
        own = set(kind.model_fields) - {"family"} - parts
        assert {(family, f"model.{name}") for name in own} <= told
    plain = {path for path in flatten(tiny("names")) if not path.startswith(("model.", "task.kind"))}
    assert plain <= {path for _, path in told}
    assert [one.path for one in settings_reference() if len(one.meaning) < 10] == []


def test_type_default_and_meaning_are_those_of_the_field(windtunnel):
    code, out, _ = windtunnel("settings", "optimizer.beta_1", "--json")
    assert (code, json.loads(out)) == (
        0,
        [
            {
                "path": "optimizer.beta_1",
                "of": [],
                "type": "number >= 0, < 1",
                "default": "0.9",
                "meaning": "For adamw: how much of the mean gradient is kept at each step.",
            }
        ],
    )
    heads = {(one.of, one.type, one.default) for one in settings_reference("model.n_kv_heads")}
    assert heads == {(("transformer", "translator"), "integer > 0 or none", "none")}
    assert [one.default for one in settings_reference("corpus")] == [None]
    assert {one.type for one in settings_reference("text.shuffle_seed")} == {"integer >= 0 or none"}


def test_defaults_are_what_set_takes():
    from windtunnel.config import override, parse

    base = parse(RunConfig, {"corpus": "names"})
    for one in settings_reference():
        if (not one.of or "transformer" in one.of) and one.default is not None and one.path != "task.kind":
            assert override(base, [f"{one.path}={one.default}"]) == base, one.path


def test_a_part_is_shown_by_its_prefix_and_an_unknown_one_is_refused(windtunnel):
    code, out, _ = windtunnel("settings", "schedule")
    assert (code, "schedule.warmup" in out, "default 100" in out, "optimizer." in out) == (0, True, True, False)
    assert {one.path for one in settings_reference("lr")} == {"optimizer.lr", "optimizer.matrix_lr"}
    assert "model.trunk.n_layers" in {one.path for one in settings_reference("model.trunk.n")}
    code, _, err = windtunnel("settings", "optimzer")
    assert (code, "did you mean optimizer?" in err) == (2, True)
    code, _, err = windtunnel("settings", "train", "--markdown")
    assert (code, "give neither PREFIX nor --json" in err) == (2, True)


def test_the_page_is_what_the_command_prints():
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == as_markdown(), "run: windtunnel settings --markdown > docs/settings.md"


@pytest.mark.parametrize("path", ["model.n_layers", "train.batch_size"])
def test_the_page_tells_a_setting(path):
    assert f"| `{path}` |" in as_markdown()


TINY = ("names", "--recipe", "tiny", "--steps", "2", "--set", "model.d_model=16", "--set", "train.threads=1")


def test_short_forms_are_the_settings(windtunnel):
    code, out, _ = windtunnel("train", *TINY, "--seed", 3, "--lr", "0.02", "--batch-size", 5, "--show", "--json")
    config = json.loads(out)
    assert (code, config["seed"], config["optimizer"]["lr"], config["train"]["batch_size"]) == (0, 3, 0.02, 5)


def test_short_forms_of_compare(windtunnel):
    short = ("--seed", 4, "--lr", "0.02", "--batch-size", 5)
    code, out, _ = windtunnel("compare", *TINY, *short, "--seeds", 2, "--vary", "model.norm=layer,rms", "--json")
    seeds = [[seed["seed"] for seed in arm["seeds"]] for arm in json.loads(out)["arms"]]
    assert (code, seeds) == (0, [[4, 5], [4, 5]])
    found = [json.loads(path.read_text()) for path in Path("runs").glob("*/seed-4/config.json")]
    assert {(config["optimizer"]["lr"], config["train"]["batch_size"]) for config in found} == {(0.02, 5)}


def test_what_show_prints_trains_the_same_run(windtunnel):
    """The same folder, whose name is a hash of all settings; also from the run's own config.json."""
    changed = ("--set", "train.clip=none", "--set", "text.unit=line", "--seed", 2)  # a None that is not the default
    code, shown, err = windtunnel("train", *TINY, *changed, "--show")
    assert code == 0
    assert not Path("runs").exists()
    Path("run.toml").write_text(shown)
    assert windtunnel("train", "--config", "run.toml")[0] == 0
    (folder,) = Path("runs").glob("*/seed-2")
    assert f"folder is {folder} " in err
    metrics = (folder / "metrics.jsonl").read_text()
    for again in (TINY + changed, ("--config", "run.toml"), ("--config", folder / "config.json")):
        code = windtunnel("train", *again)[0]
        assert (code, list(Path("runs").glob("*/seed-*"))) == (0, [folder])
    assert (folder / "metrics.jsonl").read_text() == metrics
    assert windtunnel("train", "--config", folder / "config.json", "--show")[1] == shown


def test_a_file_in_part_is_laid_over_the_recipe_and_options_over_the_file(windtunnel):
    Path("part.toml").write_text('corpus = "names"\n[model]\nfamily = "rnn"\nd_model = 8\n[train]\nsteps = 7\n')
    code, out, _ = windtunnel("train", "--config", "part.toml", "--recipe", "tiny", "--steps", 9, "--show", "--json")
    config = json.loads(out)
    assert (code, config["model"]["family"], config["model"]["d_model"], config["train"]["steps"]) == (0, "rnn", 8, 9)
    assert config["train"]["batch_size"] == tiny("names").train.batch_size


def test_a_config_that_cannot_be_used_is_refused_by_name(windtunnel):
    Path("run.toml").write_text("[train]\nsteps = 7\n")
    assert "give run.toml a line: corpus" in windtunnel("train", "--config", "run.toml")[2]
    Path("run.toml").write_text('corpus = "names"\n[train]\nstepz = 7\n')
    code, _, err = windtunnel("train", "--config", "run.toml")
    assert (code, "run.toml: there is no setting train.stepz; did you mean train.steps?" in err) == (2, True)
    code, _, err = windtunnel("train")
    assert (code, "no corpus is given" in err) == (2, True)
    Path("run.toml").write_text("corpus = 'names'\n[model]\nnorm = 'none'\nposition='none'\n[train]\nclip = 'none'\n")
    code, out, _ = windtunnel("train", "--config", "run.toml", "--recipe", "tiny", "--show", "--json")
    config = json.loads(out)
    assert (config["model"]["norm"], config["model"]["position"], config["train"]["clip"]) == ("none", "none", None)


def test_resume_extends_a_finished_run_and_says_what_the_schedule_does(windtunnel):
    assert windtunnel("train", *TINY, "--keep", "best")[0] == 0
    code, out, err = windtunnel("resume", "last", "--steps", 5, "--json")
    assert (code, json.loads(out)["seeds"][0]["step"]) == (0, 5)
    assert "2 steps, stays as it is" in err
    assert "The schedule (cosine) is that of 5 steps from here on: the learning rate was 0.0001 at step 2" in err
    assert "is 0.00015 at step 3, and 0.00025 at step 5" in err
    found = {json.loads(path.read_text())["train"]["steps"] for path in Path("runs").glob("*/seed-0/config.json")}
    assert found == {2, 5}
    config = json.loads(next(Path("runs").glob("*/seed-0/config.json")).read_text())
    assert (config["train"]["choose"], config["train"]["keep"]) == ("best", 2)
    code, _, err = windtunnel("resume", "last", "--steps", 5)
    assert (code, "has 5 steps already" in err) == (2, True)
    # What begins with an extended run, or is made of it, is on a curve of its own.
    code, _, err = windtunnel("train", "names", "--from", "last", "--steps", 2, "--out", "further")
    assert (code, json.loads(Path("further/seed-0/config.json").read_text())["schedule"]["ends"]) == (0, []), err
    assert windtunnel("alter", "last", "--window", 4, "--out", "altered")[0] == 0


ROWS = "n,body\n" + "".join(f'{n},"the dog {n} barks\nand {n % 7} cats purr"\n' for n in range(300))
SMALL = ("--recipe", "tiny", "--steps", "2", "--set", "model.d_model=16", "--set", "train.threads=1")


def test_a_table_trains_a_language_model_by_row_and_says_so(windtunnel):
    Path("mine.csv").write_text(ROWS)
    code, _, err = windtunnel("train", "mine.csv", *SMALL)
    assert (code, "mine.csv is read as a table of text (column body), a document a row" in err) == (0, True)
    Path("other.csv").write_text(ROWS.replace("body", "said"))
    code, _, err = windtunnel("train", "other.csv", "--column", "text=said", *SMALL)
    assert (code, "is read as" in err) == (0, False)
    (run,) = Path("runs").glob("other-*/seed-0")
    config = json.loads((run / "config.json").read_text())
    assert (config["text"]["unit"], config["text"]["columns"], config["task"]["kind"]) == (
        "file",
        {"text": "said"},
        "language",
    )
    assert windtunnel("evaluate", run)[0] == 0
    code, _, err = windtunnel("train", "other.csv", "--from", run, *SMALL)  # its columns are known
    assert code == 0, err


def test_what_looks_like_data_and_is_read_as_prose_is_told(windtunnel):
    Path("mine.csv").write_text(ROWS.replace("body", "said"))
    err = windtunnel("train", "mine.csv", *SMALL, "--show")[2]
    assert "is read as running text; to read its rows as documents, say which column" in err
    Path("mine.json").write_text(json.dumps(ROWS.splitlines()))
    assert "write one object a line, as .jsonl" in windtunnel("train", "mine.json", *SMALL, "--show")[2]

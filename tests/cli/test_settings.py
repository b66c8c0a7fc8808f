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


def test_every_setting_of_every_kind_is_told_with_its_meaning():
    told = {(of, one.path) for one in settings_reference() for of in one.of or ("any",)}
    for family, kind in FAMILIES.items():
        parts = {name for name, field in kind.model_fields.items() if kinds_of(field.annotation) and name == "encoder"}
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
    assert (code, "schedule.warmup" in out, "default 100" in out, "train." in out) == (0, True, True, False)
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

"""A part of a config that becomes another kind: what it keeps, what it loses, and what may be set beside it."""

import pytest

from windtunnel.config import override, parse
from windtunnel.errors import ConfigError
from windtunnel.models import MLPConfig, RNNConfig, TransformerConfig
from windtunnel.tasks import LanguageConfig
from windtunnel.training.recipes import mlp, tiny, translate
from windtunnel.training.run_config import RunConfig


def test_another_family_keeps_what_both_have_by_name():
    model = override(tiny("names"), ["model.family=rnn", "train.steps=7"]).model
    assert model == RNNConfig(context_length=32, n_layers=3, d_model=64, dropout=0.0)
    assert model.model_fields_set == {"family", "context_length", "n_layers", "d_model", "dropout"}
    back = override(
        override(tiny("names"), ["model.family=rnn"]), ["model.family=transformer", "model.n_heads=4"]
    ).model
    assert back == TransformerConfig(n_heads=4, context_length=32, n_layers=3, d_model=64, dropout=0.0)
    translator = override(tiny("names"), ["model.family=translator", "model.encoder.n_layers=2"])
    assert override(translator, ["model.family=rnn"]).model.encoder is None  # there it is a part, here a value
    assert override(mlp("names"), ["model.family=rnn"]).model == RNNConfig()
    assert override(translate("pig-latin"), ["task.kind=language"]).task == LanguageConfig()


@pytest.mark.parametrize("backwards", [False, True])
def test_settings_of_the_new_family_may_stand_before_its_name(backwards):
    given = ["model.family=mlp", "model.d_hidden=50", "model.n_layers=2"]
    model = override(tiny("names"), given[::-1] if backwards else given).model
    assert model == MLPConfig(context_length=32, n_layers=2, d_hidden=50)


def test_the_same_family_changes_nothing():
    assert override(tiny("names"), ["model.family=transformer"]) == tiny("names")


def test_a_setting_that_the_new_family_has_not_is_refused_where_it_was_given():
    with pytest.raises(
        ConfigError, match=r"--set model\.n_heads: there is no such setting; did you mean model.n_layers"
    ):
        override(tiny("names"), ["model.family=rnn", "model.n_heads=2"])
    with pytest.raises(
        ConfigError, match=r"^model is not of a known kind, given 'rnm'; known are 'transformer', .*'rnn'"
    ):
        override(tiny("names"), ["model.family=rnm"])
    with pytest.raises(ConfigError, match=r"there is no setting model.n_heads; did you mean model.n_layers"):
        parse(RunConfig, {"corpus": "names", "model": {"family": "rnn", "n_heads": 4}})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("model.window=abc", "model.window: input should be a valid integer or a list, given 'abc'"),
        ('model.window=[1,"b"]', "model.window: input should be a valid integer, given [1, 'b']"),
        ("train.compile=maybe", "train.compile: input should be 'auto' or a valid boolean, given 'maybe'"),
        ("model.n_heads=5", "model: d_model 64 is not divisible by n_heads 5; give n_heads 4 or 8, or d_model 60"),
    ],
)
def test_a_wrong_value_is_told_in_the_words_of_the_settings(given, said):
    with pytest.raises(ConfigError) as error:
        override(tiny("names"), [given])
    assert str(error.value) == said


def every_number(data, prefix=""):
    for name, value in data.items():
        if isinstance(value, dict):
            yield from every_number(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield prefix + name


@pytest.mark.parametrize("number", ["1e400", "-1e400", "Infinity", "NaN"])
def test_no_setting_is_infinite(number):
    names = [*every_number(tiny("names").model_dump()), "train.clip"]
    assert len(names) > 8
    for name in names:
        with pytest.raises(ConfigError, match=rf"^{name}: input should be .*given (-?inf|nan)"):
            override(tiny("names"), [f"{name}={number}"])

"""windtunnel stats: the numbers of the README, JSON, figures, and input that cannot be used."""

import json

import pytest

TEMPLATES = ["A=100/1000", "B=70/1000", "C=85/1000", "D=120/1000", "E=140/1000"]
REPEATS = ["0.25373", "0.2584", "0.25489", "0.2568", "0.25732", "0.26765", "0.25119"]


@pytest.fixture
def stats(command_line, monkeypatch):
    """Run a subcommand of `windtunnel stats`; gives the exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "140")
    return lambda *words: command_line("stats", *words)


def test_proportions(stats):
    code, out, _ = stats("proportions", *TEMPLATES, "--control", "A")
    assert code == 0
    b = next(line.split() for line in out.splitlines() if line.startswith("B") and "0.0646" in line)
    assert b == ["B", "0.0162", "0.0646", "0.0485", "0.0549", "1,356"]
    assert out.splitlines()[-1] == (
        "Against A, at 5 %: B is lower and E is higher (no correction, Holm); E is higher (Bonferroni, Dunnett); "
        "C, D cannot be told from A yet."
    )
    found = json.loads(stats("proportions", *TEMPLATES, "--json")[1])
    assert found["control"] == "A"
    assert found["chi2"] == pytest.approx(33.34, abs=0.005)
    assert [v["n_per_arm"] for v in found["variants"]] == [1356, 5856, 3841, 1035]


def test_proportions_in_which_nothing_is_decided(stats):
    out = stats("proportions", "new[1]=5/10", "old=5/10", "--control", "old")[1]
    assert out.splitlines()[-1] == (
        "Against old, at 5 %: nothing is decided (no correction, Bonferroni, Holm, Dunnett); "
        "new[1] cannot be told from old yet."
    )
    assert "new[1]  0.5000" in out


def test_coins(stats):
    code, out, _ = stats("coin", "7/10")
    assert code == 0
    assert [number for number in out.split() if number in ("0.7000", "0.6667")] == ["0.7000", "0.6667", "0.7000"]
    two = json.loads(stats("coin", "7/10", "12/15", "--json", "--prior", "2,3")[1])
    assert [found["alpha"] for found in two["coins"]] == [9, 14]
    assert 0.5 < two["probability_second_is_better"] < 1
    assert "with probability" in stats("coin", "7/10", "12/15")[1]
    assert "flat or unbounded" in stats("coin", "0/1", "--prior", "0.5,0.5")[1]


def test_the_mean_of_the_leaderboard(stats):
    code, out, _ = stats("mean", *REPEATS, "--above", "0.256525")
    assert code == 0
    assert out.splitlines() == [
        "0.2571 [0.2523, 0.2620] (n=7, mean, 95 % t interval)",
        "The 7 values do not show that the true mean is above 0.256525 (t test, greater: p = 0.3832).",
    ]
    below = json.loads(stats("mean", ",".join(REPEATS), "--below", "0.256525", "--json")[1])
    assert below["test"]["p"] == pytest.approx(1 - 0.3832, abs=5e-5)
    assert "is not 0" in stats("mean", "1", "1.1", "0.9", "--equal", "0")[1]
    assert stats("mean", "-0.5", "-1.5")[1].startswith("-1.0000 [")
    assert json.loads(stats("mean", "3", "--json")[1])["mean"]["low"] is None


def test_pairs(stats, tmp_path):
    lists = ["1,2,3,4.5", "1.1,2.3,3.2,4.9"]
    code, out, _ = stats("paired", *lists, "--margin", "0.5")
    assert code == 0
    assert out.startswith("B minus A: 0.2500 [0.0446, 0.4554]")
    assert "p = 0.125)" in out  # 2 of 16 sign patterns
    assert "differ by less than 0.5" in out
    rows = zip(*(text.split(",") for text in lists), strict=True)
    for head in ("", "a,b\n"):
        (tmp_path / "pairs.csv").write_text(head + "".join(f"{a},{b}\n" for a, b in rows))
        rows = zip(*(text.split(",") for text in lists), strict=True)
        assert stats("paired", "pairs.csv", "--margin", "0.5")[1] == out
    found = json.loads(stats("paired", *lists, "--json")[1])
    assert found["difference"]["estimate"] == pytest.approx(0.25)
    assert len(found["tests"]) == len(found["sentences"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mean", "1e-5", "2e-5", "1.5e-5"], "0.0000150 [0.0000026, 0.0000274] (n=3"),
        (["mean", "1e308", "1e308"], "1.0000e+308 [1.0000e+308, 1.0000e+308] (n=2"),
        (["mean", "1e-320", "2e-320"], "1.50e-320 [-4.85e-320, 7.85e-320] (n=2"),
        (["mean", "1e16", "10000000000000002"], "10000000000000000 [9999999999999988, 10000000000000012] (n=2"),
        (["mean", "1e-5"], "1e-05 (one value: no interval)"),
        (["mean", "0", "0", "0"], "0.0000 [0.0000, 0.0000] (n=3"),
        (["mean", "0.1", "0.1", "0.1", "--below", "0.3"], "p < 1e-4). They have no spread, which rounding alone can"),
        (["mean", "1", "1", "--equal", "1"], "do not show that the true mean is not 1 (t test, two-sided: p = 1).\n"),
        (["mean", "1", "2", "--above", "1e308"], "is above 1e+308 (t test, greater: p = 1).\n"),
        (["mean", "1", "2", "3", "1000000", "--above", "-1e9"], "p < 1e-4).\n"),
        (["paired", "1,2,3,4", "1.00001,2.00002,3.00001,4.00003"], "A: 0.0000175 [0.0000023, 0.0000327] (n=4"),
        (["paired", "1,2", "2,3"], "p < 1e-4). They have no spread, which rounding alone can make.\n"),
        (["paired", "1,2", "1,2"], "differ (t test, two-sided: p = 1).\n"),
        (["coin", "0/10", "0/10", "--prior", ".05,.05"], "higher than the first with probability 0.5000."),
        (["coin", "0/1000", "900/1000"], "with probability > 0.9999."),
        (["coin", "900/1000", "0/1000"], "with probability < 1e-4."),
        (["coin", "1/1000000000000"], "1.00e-12 [1.8e-13, 5.66e-12] "),
        (["coin", "999999999999/1000000000000"], " 0.9999999999998]"),
        (["power", "--effect", "100", "--sd", "1"], "2 pairs find an effect of 100 with probability > 0.9999."),
        (["proportions", "A=0/10", "B=10/10"], "Against A, at 5 %: B is higher (no correction, Bonferroni, Holm, Dun"),
        (["proportions", "A=10/10", "B=10/10"], "nothing is decided"),
        (["proportions", "A=1/1000000000", "B=3/1000000000"], "3.00e-09 [1.02e-09, 8.82e-09]"),
        (
            ["proportions", "A=30/1000", "B=1/2"],
            "Counts too small for a z test; Fisher's exact test does not decide (B",
        ),
    ],
)
def test_the_smallest_and_the_largest_numbers(stats, arguments, said):
    code, out, _ = stats(*arguments)
    assert code == 0
    assert said in out


def test_power(stats):
    code, out, _ = stats("power", "--effect", "0.5", "--sd", "1")
    assert code == 0
    assert out.splitlines()[-1] == "34 pairs find an effect of 0.5 with probability 0.8078."
    found = json.loads(stats("power", "--effect", "-0.5", "--sd", "1", "--power", "0.5", "--json")[1])
    assert found["power"][str(found["pairs_needed"])] >= 0.5 > found["power"][str(found["pairs_needed"] // 2)]


@pytest.mark.parametrize(
    "arguments",
    [["proportions", *TEMPLATES], ["coin", "7/10"], ["coin", "0/0"], ["mean", *REPEATS, "--equal", "0"], ["mean", "1"],
     ["paired", "1,2,4", "2,3,4"], ["power", "--effect", "1", "--sd", "1"]],
)  # fmt: skip
def test_a_figure(stats, tmp_path, arguments):
    if "0/0" in arguments:
        assert stats(*arguments, "--figure", "f.png")[0] == 2
        return
    code, _, err = stats(*arguments, "--figure", "new/f.png")
    assert (code, err) == (0, "written: new/f.png\n")
    assert (tmp_path / "new" / "f.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["proportions", "A=5/3", "B=1/2"], "given 5/3"),
        (["proportions", "A=1/3"], "at least two arms"),
        (["proportions", "A=1/3", "A=1/2"], "twice"),
        (["proportions", "A=1/3", "1/2"], "expected NAME=SUCCESSES/N"),
        (["proportions", "A=1/3", "B=x/2"], "'x/2'"),
        (["proportions", "A=1/3", "B=nan/2"], "whole numbers"),
        (["proportions", "A=1/3", "B=0/0"], "at least one trial"),
        (["proportions", "A=1/3", "B=1/2", "--control", "Z"], "'Z' is not among the arms A, B"),
        (["proportions", "A=1/3", "B=1/2", "--alpha", "0"], "expected an alpha from 1e-12"),
        (["proportions", f"A=1/{10**22}", "B=1/2"], "expected n up to 1e+12"),
        (["proportions", "A=1/2", f"B={10**400}/{10**400}"], "expected n up to 1e+12"),
        (["mean", "1", "2", "--alpha", "1"], "expected an alpha from 1e-12 to below 1, e.g. 0.05, given 1"),
        (["mean", "1", "2", "--alpha", "1e-300"], "given 1e-300"),
        (["mean", "1e308", "-1e308"], "interval that fits into a float"),
        (["mean", "1e308", "1e308", "--figure", "f.png"], "up to 1e+300 in a figure, given 1e+308"),
        (["paired", "1e308,1e308", "-1e308,-1e308"], "differences that fit into a float"),
        (["paired", "1,2", "2,4", "--margin", "inf"], "finite margin above 0, given inf"),
        (["power", "--effect", "1", "--sd", "1", "--alpha", "1e-300"], "expected an alpha from 1e-12"),
        (["coin", "3/7", "--prior", "1e308,1"], "a prior between 1e-12 and 1e+12"),
        (["coin", "0/10000000000000"], "expected n up to 1e+12"),
        (["coin", "7"], "SUCCESSES/N"),
        (["coin", "3/7", "--prior", "0,1"], "prior above 0"),
        (["coin", "3/7", "--prior", "1"], "prior of two numbers"),
        (["mean", "1", "nan"], "given nan"),
        (["mean", "1", "two"], "'two'"),
        (["mean", "1", "--above", "0"], "at least two values"),
        (["mean", "1", "2", "--above", "0", "--below", "0"], "choose one"),
        (["paired", "1,2", "1"], "given 2 and 1"),
        (["paired", "1,2", "1,2", "1,2"], "given 3 arguments"),
        (["paired", "1,2", "2,4", "--margin", "0"], "margin above 0"),
        (["power", "--effect", "0", "--sd", "1"], "other than 0"),
        (["power", "--effect", "1", "--sd", "1", "--power", "1"], "0 < power < 1"),
        (["power", "--effect", "0.0001", "--sd", "1"], "more than 100,000"),
        (["mean", "1", "2", "--figure", "f.txt"], ".png"),
    ],
)
def test_input_that_cannot_be_used(stats, arguments, said):
    code, out, err = stats(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("text", "said"), [("1,2,3\n4,5,6\n", "two columns"), ("1,2\n3,x\n", "'x'"), (None, "f.csv")])
def test_a_table_that_cannot_be_used(stats, tmp_path, text, said):
    if text is not None:
        (tmp_path / "f.csv").write_text(text)
    code, out, err = stats("paired", "f.csv")
    assert code in (2, 3)
    assert out == ""
    assert said in err


def test_numbers_may_stand_in_one_argument(command_line):
    expected = command_line("stats", "mean", "1", "2", "4")[1]
    assert [command_line("stats", "mean", text)[1] for text in ("1 2 4", "1, 2, 4", "1,2,4")] == [expected] * 3


def test_a_mean_is_compared_with_a_finite_number_only(command_line):
    code, out, err = command_line("stats", "mean", "1", "2", "--above", "nan")
    assert (code, out) == (2, "")
    assert "expected a finite number to compare the mean with, given nan" in err

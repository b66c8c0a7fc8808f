"""Points are read as people write them, what is assumed is said, and a bad row is named."""

import numpy as np
import pytest

from windtunnel.errors import DataError
from windtunnel.scaling.points import Points, budgets_of, read_points, write_points


def written(tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_text(text)
    return path


def test_what_is_written_is_read_again(tmp_path):
    points = Points(
        np.array([1e3, 2e3]), np.array([1e6 / 3, 5e5]), np.array([1e10, 1.05e10]), np.array([2.1, 1 / 3]),
        np.array([0, 7]), all_parameters=np.array([1100, 2200]), epochs=np.array([0.5, 1.25]),
    )  # fmt: skip
    write_points(points, tmp_path / "points.csv")
    again = read_points(tmp_path / "points.csv")
    for name in ("parameters", "tokens", "flops", "loss", "seed", "budget", "all_parameters", "epochs"):
        assert getattr(again, name).tolist() == getattr(points, name).tolist(), name
    assert again.notes == ()


@pytest.mark.parametrize("header", ["N,C,loss,seed", "params;FLOPs;val_loss;seed", "Model Size\tcompute\tL\tseed"])
def test_names_and_marks_are_those_of_people_and_missing_tokens_are_said(tmp_path, header):
    mark = next(m for m in ",;\t" if m in header)
    points = read_points(written(tmp_path, "\n".join([header, mark.join(["1e3", "6e9", "2.5", "3"]), ""])))
    assert points.tokens.tolist() == [1e6]
    assert points.seed.tolist() == [3]
    assert "D = C / 6N" in points.notes[0]


def test_missing_flops_and_seeds_are_said(tmp_path):
    points = read_points(written(tmp_path, "\ufeffn,d,loss\n1000,1000000,2.5\n"))
    assert points.flops.tolist() == [6e9]
    assert any("C = 6ND" in note for note in points.notes)
    assert any("seed" in note for note in points.notes)


def test_a_row_that_stands_there_twice_is_one_run(tmp_path):
    rows = ["1e3,1e6,6e9,2.5,0", "1e3,1e6,6e9,2.75,1", "2e3,5e5,6e9,2.25,0"]
    points = read_points(written(tmp_path, "\n".join(["n,d,c,loss,seed", rows[2], *rows, *rows[:2]])))
    assert points.loss.tolist() == [2.25, 2.5, 2.75]
    assert points.seed.tolist() == [0, 0, 1]
    assert points.notes == ("3 rows repeat another one to the last digit, and are left out: they are one run.",)
    points = read_points(written(tmp_path, "\n".join(["n,d,c,loss,seed", *rows, "1e3,1e6,6e9,2.625,1"])))
    assert len(points) == 4
    assert points.notes[0].startswith("1 rows have the size, the compute and the seed of another row and another loss")


def test_without_seeds_equal_losses_may_be_those_of_two(tmp_path):
    assert len(read_points(written(tmp_path, "n,d,loss\n1e3,1e6,2.5\n1e3,1e6,2.5\n"))) == 2


def test_columns_in_different_units_are_said(tmp_path):
    [note] = read_points(written(tmp_path, "n,d,c,loss,seed\n1,2,12e15,2.5,0\n")).notes
    assert note.startswith("C is 1e+15 times 6ND, so N, D and C are not in the same unit")
    assert read_points(written(tmp_path, "n,d,c,loss,seed\n1e3,1e6,200e9,2.5,0\n")).notes == ()


def test_rows_whose_flops_are_far_from_those_of_the_others_are_said(tmp_path):
    rows = "".join(f"1e3,1e6,{c},2.5,0\n" for c in ("6e9", "7e9", "6e13"))
    [note] = read_points(written(tmp_path, f"n,d,c,loss,seed\n{rows}")).notes
    assert note.startswith("C is far from 6ND in 1 of 3 rows, such as that with N = 1e+03, D = 1e+06 and C = 6e+13:")


def test_budgets_are_runs_within_ten_per_cent():
    budget = budgets_of([1.0e9, 1.09e9, 1.11e9, 3e9, 2.9e9])
    assert len(set(budget.tolist())) == 3
    assert budget[0] == budget[1] == pytest.approx(np.sqrt(1.09) * 1e9)
    assert budget[3] == budget[4] == pytest.approx(np.sqrt(8.7) * 1e9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column parameters"),
        ("n,d\n1,2\n", "no column loss"),
        ("n,loss\n1,2\n", "tokens or flops"),
        ("n,d,loss\n", "no rows"),
        ("n,d,loss\n1,2,3\n1,2,nan\n", "line 3: loss is 'nan'"),
        ("n,d,loss\n1,-2,3\n", "line 2: d is '-2'"),
        ("n,d,loss\n1,2\n", "line 2: loss is ''"),
        ("n,d,loss,seed\n1,2,3,0.5\n", "a whole number"),
        (
            "n,d,loss,val_loss\n1,2,3,4\n",
            "has 2 columns for loss: loss and val_loss; leave the one that",
        ),
        ("n,d,loss\n" + "9" * 200_000 + ",2,3\n", "is no CSV file: field larger than field limit"),
        ("n,d,loss,seed\n1,2,3,1e300\n", "line 2: seed is '1e300', expected a whole number of at most 9e.15"),
        ("n,d,loss\n1e300,2,3\n", "line 2: n is '1e300', expected a number above 0, from 1e-09 to 1e.18"),
        ("n,c,loss\n1,1e300,3\n", "line 2: c is '1e300', expected a number above 0, from 1e-09 to 1e.36"),
        ("n,c,loss\n1,5e-324,3\n", "line 2: c is '5e-324'"),
        ("n,d,loss\n1,2,1e300\n", "line 2: loss is '1e300', expected a number above 0, from 1e-09 to 1e.06"),
        ("n,c,loss\n1e18,1e-9,3\n", "points: tokens of run 0 is 1.66667e-28"),
    ],
)
def test_a_bad_file_or_row_is_named(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_points(written(tmp_path, text))


def test_a_file_that_is_not_there_or_not_text_is_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_points(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"n,d,loss\n\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_points(tmp_path / "b.csv")


def test_columns_of_different_lengths_are_refused():
    one, two = np.ones(1), np.ones(2)
    with pytest.raises(DataError, match="2 rows of parameters but 1 of tokens"):
        Points(two, one, two, two, two.astype(int))
    with pytest.raises(DataError, match="loss of run 1 is -1"):
        Points(two, two, two, np.array([1, -1]), two.astype(int))

"""Real processes, judged: the right word and exit status, each run once, and a clear answer to every odd program."""

import json
import math
import statistics
from pathlib import Path

import pytest
from scipy import stats
from shell_programs import NOISE, prints

from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.programs.arms import make_plan
from windtunnel.programs.runs import execute_programs

BASE = prints("2 + x")


def scores(found, arm):
    return [run.scores["loss"] for run in found.arms[arm].seeds]


@pytest.mark.parametrize(
    ("what", "word", "status"),
    [
        ("1.9 + x + x * x / 99", "better", 0),
        ("2.1 + x + x * x / 99", "worse", 12),
        ("2.0001 + x + x * x / 9999", "no difference that matters", 10),
        ("2.5 - x * x", "undecided", 11),
    ],
)
def test_words_and_exit_statuses(judge, what, word, status):
    found, code, _ = judge({"base": BASE, "new": prints(what)}, margin=0.005)
    (one,) = found.judgements
    assert (one.verdict.word, code) == (word, status), one.sentence
    base, new = scores(found, 0), scores(found, 1)
    assert one.verdict.p == pytest.approx(stats.ttest_rel(new, base).pvalue, rel=1e-6)
    assert one.verdict.difference.estimate == pytest.approx(statistics.fmean(new) - statistics.fmean(base))
    assert one.relative == pytest.approx(one.verdict.difference.estimate / statistics.fmean(base))
    assert found.rule.margin == pytest.approx(0.005 * statistics.fmean(base))


def test_higher_is_better_and_several_metrics(judge):
    two = prints("2 + x").replace("loss %.6f", "acc %.6f loss 1").replace("acc", "acc")
    more = two.replace("2 + x", "3 + x + x / 99")
    metrics = [{"where": "acc ([0-9.]+)", "better": "higher"}, {"where": "loss ([0-9.]+)"}]
    found, code, _ = judge({"base": two, "new": more}, metrics=metrics)
    assert (found.judgements[0].verdict.word, code) == ("better", 0)
    assert found.judgements[0].verdict.difference.estimate == pytest.approx(1.0, abs=0.02)
    assert found.judgements[0].others["loss"].estimate == 0.0
    assert found.rule.better == "higher"


def test_the_margin_of_a_negative_score_is_a_share_of_its_size(judge):
    metrics = [{"where": "loss (-?[0-9.]+)"}]
    found, code, _ = judge({"base": prints("-2 - x"), "new": prints("-2.0001 - x + x / 9999")}, metrics=metrics)
    assert found.rule.margin == pytest.approx(-0.005 * statistics.fmean(scores(found, 0)))
    assert (found.judgements[0].verdict.word, code) == ("no difference that matters", 10)
    assert found.judgements[0].relative < 0


def test_several_arms_end_in_zero_and_holm_corrects(judge):
    found, code, _ = judge({"base": BASE, "a": prints("1.9 + x + x / 99"), "b": prints("2.1 + x + x / 99")})
    assert [j.verdict.word for j in found.judgements] == ["better", "worse"]
    assert {j.verdict.level for j in found.judgements} == {0.025, 0.05}
    assert code == 0


def test_every_run_once_and_new_ones_when_a_named_file_changes(judge):
    Path("once.sh").write_text("echo run $1 >> log; echo loss 2.$1\n")
    Path("other.sh").write_text("echo loss 1.$1\n")
    arms = {"base": "sh once.sh {seed}", "new": "sh other.sh {seed}"}
    judge(arms, seeds=3)
    found, _, said = judge(arms, seeds=5)
    assert Path("log").read_text() == "".join(f"run {i}\n" for i in range(5))
    assert len(said) == 4
    assert scores(found, 0) == [2.0, 2.1, 2.2, 2.3, 2.4]
    Path("once.sh").write_text("echo changed $1 >> log; echo loss 3.$1\n")
    found, _, _ = judge(arms, seeds=5)
    assert scores(found, 0) == [3.0, 3.1, 3.2, 3.3, 3.4]
    assert Path("log").read_text().count("changed") == 5


def test_a_tracked_file_that_the_command_does_not_name(judge):
    Path("config").write_text("2")
    arms = {"base": "echo run >> log; echo loss $(cat config).{seed}", "new": "echo loss 1.{seed}"}
    judge(arms, track=["config"])
    Path("config").write_text("3")
    found, _, _ = judge(arms, track=["config"])
    assert scores(found, 0)[1] == 3.1
    assert Path("log").read_text() == 8 * "run\n"
    assert "files config sha256:" in found.signature


def test_a_file_of_an_arm_that_changes_during_the_runs_is_said(judge):
    Path("edits.sh").write_text("echo '#' >> edits.sh; echo loss 1.$1\n")
    found, _, _ = judge({"base": BASE, "new": "sh edits.sh {seed}"})
    assert any("new: edits.sh changed while the runs were made" in note for note in found.notes)


def test_a_program_that_fails_is_said_and_not_judged_away(judge):
    fails = "test {seed} = 2 && { echo out of memory >&2; exit 9; }; echo loss 1.{seed}"
    found, code, _ = judge({"base": BASE, "new": fails})
    assert code == 1
    assert found.judgements[0].verdict.n == 3
    assert any("1 of 4 runs failed" in n and "exit status 9; its last line: out of memory" in n for n in found.notes)


def test_failed_runs_are_kept_until_they_are_asked_for_again(judge):
    arms = {"base": BASE, "new": "echo x >> tries; test -f fixed || exit 1; " + prints("1 + x + x / 9")}
    assert judge(arms)[1] == 1
    Path("fixed").touch()
    assert judge(arms)[1] == 1
    assert Path("tries").read_text() == 4 * "x\n"
    assert judge(arms, again=True)[1] == 0
    assert Path("tries").read_text() == 8 * "x\n"
    judge(arms, again=True)
    assert Path("tries").read_text() == 8 * "x\n"


def test_a_program_that_hangs_is_ended_by_the_time_limit(judge):
    found, code, _ = judge({"base": BASE, "new": "echo loss 1; sleep 600 # {seed}"}, time_limit=0.3, seeds=1)
    assert code == 1
    assert any("ended after the time limit of 0.3 s" in note for note in found.notes)


def test_no_metric_is_a_failure_that_says_what_was_looked_for(judge):
    found, code, _ = judge({"base": BASE, "new": "echo accuracy {seed}"})
    assert code == 1
    assert found.judgements == ()
    assert any("no metric: 'loss ([0-9.]+)' finds nothing in its output" in note for note in found.notes)


def test_nan_is_a_run_that_diverged(judge):
    found, code, _ = judge({"base": BASE, "new": "echo loss 1; echo loss nan {seed}"}, seeds=6)
    (one,) = found.judgements
    assert (one.verdict.word, one.verdict.diverged, code) == ("worse", (6, 0), 12)
    assert [run.scores["loss"] for run in found.arms[1].seeds] == [math.inf] * 6
    assert any("new diverged in 6 of 6 seeds. The first: loss is nan" in note for note in found.notes)


def test_nan_where_higher_is_better_is_worse_too(judge):
    metrics = [{"where": "loss ([0-9.]+)", "better": "higher"}]
    found, code, _ = judge({"base": BASE, "new": "echo loss nan {seed}"}, seeds=6, metrics=metrics)
    assert (found.judgements[0].verdict.word, code) == ("worse", 12)


@pytest.mark.parametrize("who", ["base", "new"])
def test_a_program_that_ignores_its_seed_is_said_and_not_judged(judge, who):
    arms = {"base": BASE, "new": prints("1 + x")} | {who: "echo loss 1.5 # {seed}"}
    found, code, _ = judge(arms)
    assert (found.judgements, code) == ((), 1)
    assert any(f"{who}: all 4 seeds gave loss 1.5, equal to the last digit" in note for note in found.notes)


def test_until_decided_stops_at_a_program_that_ignores_its_seed(judge):
    _, code, said = judge({"base": BASE, "new": "echo loss 1.5 # {seed}"}, until_decided=True, max_seeds=9)
    assert code == 1
    assert len(said) == 8


def test_repeats_tell_the_noise_at_one_seed_from_that_between_seeds(judge):
    noisy = "echo x >> count; n=$(wc -l < count); echo loss 1.$((n % 2))$(({seed} % 2))"
    found, _, _ = judge({"base": BASE, "new": noisy}, repeat=2)
    assert scores(found, 1) == pytest.approx([1.05, 1.06, 1.05, 1.06])
    told = [note for note in found.notes if "at one seed" in note]
    assert any("base: repeated at one seed it gives the same loss to the last digit" in note for note in told)
    assert any("new: at one seed loss scatters by 0.0707" in note and "pairing by it gains little" in note
               for note in told)  # fmt: skip
    assert "seeds 0-3 x 2" in found.signature


def test_much_output_is_cut_and_that_is_said(judge):
    much = "yes | head -c 3000000; " + prints("1 + x + x / 9")
    found, code, _ = judge({"base": BASE, "new": much}, output_limit=0.01)
    assert code == 0
    assert any("new: 4 runs wrote more than 0.01 MB" in note for note in found.notes)
    assert (Path(found.arms[1].seeds[0].folder) / "output.log").stat().st_size < 11_000


def test_children_that_are_left_behind_are_said(judge):
    found, _, _ = judge({"base": BASE, "new": "sleep 600 & " + prints("1 + x + x / 9")}, seeds=1)
    assert any("new: 1 runs left processes behind" in note for note in found.notes)


def test_a_folder_of_its_own_for_every_run(judge):
    Path("train.sh").write_text("test -e model && exit 1; touch model; echo loss 1.$1\n")
    _, code, _ = judge({"base": BASE, "new": "sh train.sh {seed}"})
    assert code == 1
    found, code, _ = judge({"base": BASE, "new": "sh {here}/train.sh {seed}"}, own_folder=True)
    assert scores(found, 1) == [1.0, 1.1, 1.2, 1.3]
    assert (Path(found.arms[1].seeds[2].folder) / "files/model").exists()


def test_a_metric_from_a_file_in_the_place_of_the_run(judge):
    writes = 'printf "step,loss\\n1,9\\n2,1.{seed}\\n" > {out}/log.csv'
    metrics = [{"where": "loss", "file": "{out}/log.csv"}]
    found, code, _ = judge({"base": writes.replace("1.{seed}", "2.{seed}1"), "new": writes}, metrics=metrics)
    assert (scores(found, 1), code) == ([1.0, 1.1, 1.2, 1.3], 0)


def test_times_of_runs_side_by_side_are_said(judge):
    arms = {"base": BASE, "new": prints("1 + x")}
    metrics = [{"where": "loss ([0-9.]+)"}, {"where": "wall_seconds"}]
    found, _, _ = judge(arms, jobs=2, metrics=metrics)
    assert any("wall_seconds: 2 runs at once share the cores" in note and "--jobs 1" in note for note in found.notes)
    assert all(run.scores["wall_seconds"] > 0 for arm in found.arms for run in arm.seeds)


def test_until_decided_keeps_to_its_looks_and_decides(judge):
    found, code, said = judge({"base": BASE, "new": prints("1 + x + x / 9")}, until_decided=True, max_seeds=12)
    assert (code, found.rule.looks, len(said)) == (0, tuple(range(4, 13)), 8)
    assert found.judgements[0].verdict.level < 0.05


def test_the_baseline_of_before_is_not_run_again(judge):
    Path("train.sh").write_text("echo run >> log; echo loss 2.$1\n")
    before, _, _ = judge({"base": "sh train.sh {seed}", "other": prints("1 + x")})
    folder = str(Path(before.arms[0].seeds[0].folder).parent)
    Path("train.sh").write_text("echo changed >> log; echo loss 1.$1$1\n")
    found, code, _ = judge({"base": "sh train.sh {seed}"}, baseline_from=folder)
    assert Path("log").read_text() == 4 * "run\n" + 4 * "changed\n"
    assert ([arm.name for arm in found.arms], code) == (["baseline", "base"], 0)
    assert scores(found, 0) == [2.0, 2.1, 2.2, 2.3]
    with pytest.raises(ConfigError, match=r"seeds 0-3, and 0-5 are asked for.*--seeds"):
        judge({"base": "sh train.sh {seed}"}, baseline_from=folder, seeds=6)


@pytest.mark.parametrize("executor", ["local", "dask"])
def test_executors_give_the_same(judge, executor):
    _, code, said = judge({"base": BASE, "new": prints("1 + x + x / 9")}, executor=executor, jobs=2)
    assert (code, len(said)) == (0, 8)


def test_an_altered_output_is_found(judge):
    arms = {"base": BASE, "new": prints("1 + x + x / 9")}
    found, _, _ = judge(arms)
    output = Path(found.arms[1].seeds[2].folder) / "output.log"
    output.write_text("loss 0.001\n")
    with pytest.raises(ArtifactError, match="altered since the run: delete the folder"):
        judge(arms)


def test_when_asked_to_stop_the_running_end_and_the_same_command_goes_on(judge, tmp_path):
    from windtunnel.programs.judge import prepare
    from windtunnel.runs.execute import open_executor

    waits = "touch begun; while ! test -e go; do sleep 0.02; done; " + prints("1 + x + x / 9")
    arms = {"base": BASE, "new": waits}
    plan = make_plan({"metrics": [{"where": "loss ([0-9.]+)"}], "seeds": 4, "arms": arms})
    judged = prepare(plan, tmp_path / "runs")
    places = [(arm, seed, 0) for seed in range(4) for arm in judged.programs]
    with open_executor("local", 1) as workers:
        said = [told for _, told in execute_programs(places, plan, workers, Path("begun").exists)]
    assert said.count("finished") == 1
    assert said.count("interrupted") == 1
    assert said.count("not begun") == 6
    Path("go").touch()
    _, code, said = judge(arms)
    assert (code, len(said)) == (0, 7)


def test_looking_again_with_more_seeds_is_said(judge):
    from windtunnel.comparison.compare import save_comparison

    arms = {"base": BASE, "new": prints("2.5 - x * x")}
    save_comparison(judge(arms, seeds=4)[0])
    assert any("judged before with 4 seeds" in note for note in judge(arms, seeds=5)[0].notes)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"arms": {"a": "echo {seed}"}}, "needs two arms"),
        ({"arms": {"a": "echo {seed}", "b": "echo"}}, r"b does not contain \{seed\}"),
        ({"arms": {"a": "echo {seed}", "b": "echo '{seed}"}}, "close its quotes"),
        ({"baseline": "c"}, "no arm 'c' to be the baseline"),
        ({"baseline_from": "nowhere"}, "holds no runs of an arm"),
        ({"track": ["nowhere"]}, "there is no such file"),
        ({"until_decided": True, "max_seeds": 3}, "at least 4"),
        ({"until_decided": True, "correction": "dunnett"}, "use holm"),
        ({"margin": 2}, "margin"),
        ({"seed": 3}, "did you mean seeds"),
        ({"results": {"a": "x.csv"}}, "names of their own"),
    ],
)
def test_what_cannot_be_judged_is_said(judge, settings, told):
    with pytest.raises(ConfigError, match=told):
        judge(**{"arms": {"a": "echo {seed}", "b": "echo  {seed}"}, **settings})


def test_a_number_in_a_shell_command_is_the_seed_and_other_braces_stay(judge):
    found, _, _ = judge({"base": NOISE + 'print "loss", x }\'', "new": "x=7; echo loss ${x}.{seed}"})
    assert scores(found, 1) == [7.0, 7.1, 7.2, 7.3]
    assert json.loads((Path(found.arms[1].seeds[1].folder) / "run.json").read_text())["command"].endswith("${x}.1")

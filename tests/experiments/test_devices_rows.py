"""The rows 000-T3a to c and 000-R: real ranks, verdicts that see a run which is not the same, and their report."""

import json
import signal
from dataclasses import asdict

import pytest
import torch

from windtunnel.errors import ArtifactError, WindtunnelError
from windtunnel.experiments import gpt2_report, ranks, training_on_many_devices
from windtunnel.experiments.frame import Row, Setting
from windtunnel.experiments.ranks import Ended, given, held, n_bytes, on_ranks, run
from windtunnel.experiments.training import apart, losses_of
from windtunnel.report.outcome import Claim
from windtunnel.training.distributed import ALONE


def verdicts(findings):
    return [claim.verdict for claim in findings if isinstance(claim, Claim)]


def test_one_run_on_one_process_and_on_two(quick):
    outcome, shown = quick("training-on-many-devices")
    assert {claim.statement: claim.verdict for claim in outcome.claims if claim.verdict != "holds"} == {}
    assert [claim.id for claim in outcome.claims].count("000-T3c") == 6
    values = {claim.statement: claim.values for claim in outcome.claims}
    [codes] = [own["codes"] for own in values.values() if "codes" in own]
    assert codes == [75, -signal.SIGKILL]
    halves = values["fsdp: a rank holds 0.5 of weights, gradients and optimizer state"]
    assert all(0.5 <= share < 0.51 for share in halves.values())
    assert [progress.done for progress in shown] == [0, 1, 2]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folders of two runs of other seeds, trained, and the config of the first."""
    out = tmp_path_factory.mktemp("two")
    config = training_on_many_devices.problem(Setting(True, 0, out))
    for name in training_on_many_devices.NAMES:
        training_on_many_devices.begin(config.replace(seed=int(name != "alone")), out / name)
    run(out / "alone")
    run(out / "ddp")
    return out


def test_other_runs_are_seen(two):
    others = [{"resumed": 1e-9}]
    for name in ("ddp-moved", "stopped", "killed"):
        run(two / name, stop_at=3)
        assert len(losses_of(two / name)) == 3
    assert verdicts(training_on_many_devices.several("ddp", two, others))[:2] == ["does not hold"] * 2
    assert verdicts(training_on_many_devices.several("ddp", two, others))[2] == "undecided"  # not as many steps
    assert verdicts(training_on_many_devices.several("ddp", two, others))[-1] == "does not hold"
    assert verdicts(training_on_many_devices.killed([0, -9], two))[0] == "does not hold"
    assert apart(two / "alone", two / "alone") == 0 < apart(two / "alone", two / "ddp")


def test_what_a_process_holds(two):
    own = held(two / "alone", ALONE)
    assert own["weights"] == own["gradients"] == n_bytes(ranks.restored(two / "alone", ALONE)[0].parameters())
    assert own["optimizer"] == pytest.approx(2 * own["weights"], rel=0.01)
    assert n_bytes([torch.zeros(10), torch.zeros(3, dtype=torch.float64)]) == 64
    half = {name: own[name] / 2 for name in (*ranks.KINDS, "peak")}
    claims = training_on_many_devices.memory(own, [{"ddp": own, "fsdp": half}, {"ddp": own, "fsdp": half}])
    assert verdicts(claims) == ["holds", "holds"]
    claims = training_on_many_devices.memory(own, [{"ddp": own, "fsdp": own}])
    assert verdicts(claims) == ["holds", "does not hold"]


def test_the_last_words_of_a_rank_that_failed(tmp_path):
    with pytest.raises(WindtunnelError, match="rank 1 of 2 ended with 3; it said: last"):
        given([Ended(0, "1", ""), Ended(3, "", "first\nlast\n")])
    [ended] = on_ranks(1, "go-on", tmp_path)
    assert ended.code == 3
    assert "is not a run folder" in ended.said
    assert "Traceback" not in ended.said


# ------------------------------------------------------------------------------------------------------------- report


def test_several_verdicts_are_one():
    def one(*verdicts):
        return Row("r").gathers("s", verdicts)

    assert one("holds", "holds").verdict == "holds"
    assert one("holds", "undecided").verdict == "undecided"
    assert one("holds", "undecided", "does not hold").verdict == "does not hold"
    assert one("holds", "undecided").measured == "1 of 2 hold, 0 do not, 1 undecided"
    assert one("holds", "holds").values == {"holds": 2, "does not hold": 0, "undecided": 0}


def write(folder, quick, *claims):
    folder.mkdir()
    data = {"quick": quick, "signature": "s", "claims": [asdict(claim) for claim in claims]}
    (folder / "outcome.json").write_text(json.dumps(data, default=str), encoding="utf-8")


def test_a_whole_outcome_is_taken_before_a_quick_one(tmp_path):
    claim = Row("000-T2a").shows("rope: as good", True, "1", n=1)
    at = Setting(True, 0, tmp_path / "gpt2-report")
    write(tmp_path / "gpt2-positions-quick", True)
    assert gpt2_report.find(at, "gpt2-positions").quick
    write(tmp_path / "gpt2-positions", False, claim)
    found = gpt2_report.find(at, "gpt2-positions")
    assert (found.quick, found.claims, found.folder) == (False, (claim,), tmp_path / "gpt2-positions")
    (tmp_path / "gpt2-positions" / "outcome.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"is not the outcome of .*make it again: windtunnel experiment gpt2-pos"):
        gpt2_report.find(at, "gpt2-positions")


def test_what_is_not_there_is_run_quickly(tmp_path):
    at = Setting(False, 0, tmp_path / "gpt2-report")
    found = gpt2_report.find(at, "gpt2-kv-heads")
    assert found.quick
    assert found.folder == at.out / "gpt2-kv-heads"
    assert (found.folder / "report.html").exists()
    assert {claim.id for claim in found.claims} == {"000-T2b"}


def test_the_report_gathers_the_verdicts_of_its_parts(quick):
    outcome = quick("gpt2-report")[0]
    parts = [claim for name in gpt2_report.PARTS for claim in quick(name)[0].claims]
    assert len(outcome.claims) == len(gpt2_report.GATHERED)
    for id, claim in zip(gpt2_report.GATHERED, outcome.claims, strict=True):
        own = [part.verdict for part in parts if part.id == id]
        assert claim.statement.startswith(f"{id}, ")
        assert claim.values == {verdict: own.count(verdict) for verdict in ("holds", "does not hold", "undecided")}
        assert own
    assert next(len(table.rows) for table in outcome.tables) == len(parts)
    assert list(outcome.figures) == ["alterations", "ranks"]
    assert gpt2_report.costs([]) is gpt2_report.shares([]) is None

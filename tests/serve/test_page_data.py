"""What the page is told is true: the table, the curves, a look inside, and files that nobody may steer."""

import asyncio
import csv
import io
import json
import math
import os
import time
from hashlib import sha256

import numpy as np
import pytest
import torch
from served import POLICY, TOKEN, asking
from shown import comparison, copy_run, loss, make_folder, make_run, save, write_log

from patience import wait_for
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.generation.trace import trace
from windtunnel.inspect.attention import attention
from windtunnel.inspect.lens import lens
from windtunnel.runs.history import Log
from windtunnel.serve.curves import series, thinned
from windtunnel.serve.index import Index, identity
from windtunnel.serve.pages import OWN, STATIC
from windtunnel.serve.safety import Policy
from windtunnel.text.tokenizers import characters_tokenizer
from windtunnel.training.disk import locked
from windtunnel.training.events import Started, Step, to_line
from windtunnel.training.run import load, open_run

HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("shown"))


@pytest.fixture
def page(shown):
    """page(path, body): the answer of an application to one request."""

    def once(path, body=None, root=shown, policy=POLICY, **headers):
        async def run():
            async with asking(root, policy) as client:
                if body is None:
                    return await client.get(path, headers=headers)
                return await client.post(path, content=json.dumps(body), headers={**HEADERS, **headers})

        return asyncio.run(run())

    return once


def table(root):
    """The whole table, once every run has been read."""
    index = Index(root)
    wait_for(lambda: not (index.table()["unread"] or index.looked < 0), "reading the runs")
    return {group["name"]: group for group in index.table()["groups"]}


def test_the_table_says_of_each_config_what_its_seeds_say_together(shown):
    found = table(shown)
    assert set(found) == {"three", "prose", "hurt"}
    ends = [loss(100, seed) + 0.1 for seed in range(3)]
    mean, half = np.mean(ends), 4.302653 * np.std(ends, ddof=1) / math.sqrt(3)
    dev = found["three"]["scores"]["loss"]
    assert (dev["estimate"], dev["low"], dev["high"]) == pytest.approx((mean, mean - half, mean + half), abs=1e-6)
    first = found["three"]["runs"][0]
    assert (first["name"], first["step"], first["parameters"], first["seed"]) == ("three/seed-0", 100, 1234, 0)
    assert first["tokens_per_second"] == pytest.approx(10_000)
    [hurt] = found["hurt"]["runs"]
    assert hurt["state"] == "damaged"
    assert "config.json" in hurt["message"]


def test_a_run_that_is_trained_moves_and_others_are_not_read_again(tmp_path):
    letters = characters_tokenizer("abc", end=True)
    run, other = make_run(tmp_path / "moves", letters), make_run(tmp_path / "rests", letters)
    write_log(run, 10, steps=30, end=False)
    index = Index(tmp_path)
    index.refresh()
    rests = index.known[identity("rests")]
    with locked(run.folder):
        write_log(run, 20, steps=30, end=False)
        index.looked = -math.inf
        index.refresh()
    assert index.known[identity("moves")].row["step"] == 20
    assert index.known[identity("rests")] is rests
    assert other.folder.exists()


def test_what_has_not_changed_is_not_sent_again(page):
    first = page("/page/results")
    again = page("/page/results", **{"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


def test_a_curve_has_at_most_a_point_a_pixel_and_keeps_the_extremes():
    x = np.arange(1, 100_001, dtype=float)
    y = np.sin(x)
    y[31_415] = 40.0
    found = thinned(x, y, y, y, 500, False)
    assert len(found["x"]) == 500
    assert max(found["high"]) == 40.0
    assert min(found["low"]) == pytest.approx(-1)
    assert found["n"] == 100_000
    assert np.average(found["middle"], weights=np.bincount(((x - 1) / 99_999 * 499).astype(int))) == pytest.approx(
        y.mean()
    )
    in_log = thinned(x, y, y, y, 500, True)
    assert in_log["x"][:3] == [1, 2, 3]
    assert thinned(x[:9], y[:9], y[:9], y[:9], 500, False)["middle"] == y[:9].tolist()


def test_a_band_is_the_interval_of_the_mean_over_seeds(page):
    ids = ",".join(identity(f"three/seed-{seed}") for seed in range(3))
    [line] = page(f"/page/curves?runs={ids}").json()["series"]
    losses = np.array([[loss(step, seed) for step in range(1, 101)] for seed in range(3)])
    half = 4.302653 * losses.std(axis=0, ddof=1) / math.sqrt(3)
    assert line["x"] == list(range(1, 101))
    assert line["middle"] == pytest.approx(losses.mean(axis=0).tolist())
    assert line["high"] == pytest.approx((losses.mean(axis=0) + half).tolist(), abs=1e-6)
    three = page(f"/page/curves?runs={ids}&band=false&axis=tokens&quantity=dev+loss&first=4000").json()["series"]
    assert [one["name"] for one in three] == [f"three/seed-{seed}" for seed in range(3)]
    assert three[1]["x"] == [5000, 7500, 10_000]
    assert three[1]["middle"] == pytest.approx([loss(step, 1) + 0.1 for step in (50, 75, 100)])


def test_smoothing_is_a_mean_that_is_not_pulled_to_its_beginning(page):
    id = identity("three/seed-0")
    [line] = page(f"/page/curves?runs={id}&smooth=4").json()["series"]
    expected, total, weight = [], 0.0, 0.0
    for step in range(1, 101):
        total, weight = 0.75 * total + 0.25 * loss(step), 0.75 * weight + 0.25
        expected.append(total / weight)
    assert line["middle"] == pytest.approx(expected)


def test_a_log_is_read_on_and_a_resume_takes_steps_back(tmp_path):
    run = make_run(tmp_path / "run", characters_tokenizer("abc", end=True))
    write_log(run, 10, end=False)
    path, log = run.folder / "metrics.jsonl", Log()
    log.update(run)
    with path.open("a") as file:
        file.write(to_line(Started(8, 12, 1, 1.0, 1.0)) + to_line(Step(9, 5.0, 1e-3, 0.5, 7, 1.0))[:20])
    log.update(run)
    assert log.curve("loss")[0].tolist() == list(range(1, 9))
    write_log(run, 30, end=False)  # cut back and grown since
    log.update(run)
    assert log.curve("loss")[0].tolist() == list(range(1, 31))
    assert series([("a", [("a", log)])], "tokens_per_second")[0]["middle"][0] == pytest.approx(10_000)


def test_what_differs_and_what_the_history_says(page):
    ids = f"{identity('three/seed-0')},{identity('three/seed-1')},{identity('prose')}"
    found = page(f"/page/about?runs={ids}").json()
    assert found["columns"] == ["three", "prose"]
    assert found["differ"]["text.unit"] == ["line", "text"]
    assert "seed" not in found["differ"]
    assert [run["name"] for run in found["runs"]] == ["three/seed-0", "three/seed-1", "prose"]


def test_the_doctor_names_a_spike_without_training_anything(tmp_path, page):
    run = make_run(tmp_path / "spikes", characters_tokenizer("abc", end=True))
    losses = [2 + 0.01 * math.sin(step) for step in range(60)]
    losses[40] = 9.0
    lines = [to_line(Step(step + 1, value, 1e-3, 0.5, 100, 0.01)) for step, value in enumerate(losses)]
    (run.folder / "metrics.jsonl").write_text("".join(lines))
    [found] = page(f"/page/about?runs={identity('spikes')}", root=tmp_path).json()["runs"]
    [spike] = [one for one in found["findings"] if one["name"] == "loss spike"]
    assert "the first at step 41; the highest loss is 9" in spike["evidence"]


def test_csv_has_every_number(page):
    answer = page(f"/page/curves.csv?runs={identity('prose')}")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"].startswith("text/csv")
    assert [float(row["loss"]) for row in rows] == [loss(step, 5) for step in range(1, 51)]
    assert [row["dev loss"] for row in rows if row["dev loss"]] == [str(loss(step, 5) + 0.1) for step in (25, 50)]


def test_a_look_is_the_trace_of_the_run(page, shown):
    answer = page("/page/look", {"run": identity("three/seed-1"), "text": "anna", "tokens": 5, "seed": 3}).json()
    direct = trace(load(shown / "three/seed-1"), Request("anna", 5, SamplingConfig(), 3, 8))
    assert [t["id"] for t in answer["tokens"]] == [t.id for t in direct.tokens]
    assert [t["probability_1"] for t in answer["tokens"]] == pytest.approx([t.probability_1 for t in direct.tokens])
    assert answer["run"] == "three/seed-1"


@pytest.mark.parametrize(("name", "text"), [("three/seed-1", "anna"), ("prose", "She said")])
def test_a_continuation_goes_on_from_an_alternative(page, name, text):
    asked = {"run": identity(name), "text": text, "tokens": 3, "temperature": 0}
    first = page("/page/look", asked).json()
    ids = [token["id"] for token in first["tokens"][:2]] + [first["tokens"][2]["alternatives"][1]["id"]]
    second = page("/page/look", {**asked, "ids": ids}).json()
    assert [token["id"] for token in second["tokens"][:3]] == ids
    assert second["tokens"][1]["probability_1"] == pytest.approx(first["tokens"][1]["probability_1"], rel=1e-5)
    assert second["tokens"][2]["probability_1"] == pytest.approx(
        first["tokens"][2]["alternatives"][1]["probability_1"], abs=1e-6
    )
    assert second["n_prompt"] == 3


def test_another_temperature_is_that_of_the_logits(page, shown):
    text, trained = "anna", load(shown / "three/seed-0")
    ids = trained.tokenizer.encode(text).tolist()
    asked = {"run": identity("three/seed-0"), "text": text, "ids": ids, "shown": [[1, 2]] * 4, "temperature": 0.5}
    found = page("/page/again", asked).json()["tokens"]
    with torch.no_grad():
        p_TV = (trained.model(torch.tensor([[trained.tokenizer.end_id, *ids]]))[0] / 0.5).softmax(-1)
    assert [one["own"] for one in found] == pytest.approx([float(p_TV[i, id]) for i, id in enumerate(ids)], rel=1e-4)
    assert found[2]["shown"] == pytest.approx(p_TV[2, [1, 2]].tolist(), rel=1e-4)


def test_attention_and_lens_are_those_of_the_model(page, shown):
    asked, trained = {"run": identity("three/seed-0"), "text": "anna"}, load(shown / "three/seed-0")
    ids = [trained.tokenizer.end_id, *trained.tokenizer.encode("anna").tolist()]
    heads = page("/page/attention", asked).json()
    assert (heads["n_layers"], heads["n_heads"], heads["labels"][1:]) == (2, 2, list("anna"))
    assert heads["max_difference"] == pytest.approx(attention(trained.model, ids).max_difference, abs=1e-5)
    layers = page("/page/lens", asked).json()["layers"]
    p_LTV = lens(trained.model, ids).softmax(-1)
    assert len(layers) == 3
    assert layers[1][2]["best"][0][1] == pytest.approx(float(p_LTV[1, 2].max()), rel=1e-5)
    assert layers[2][1]["own"] == pytest.approx(float(p_LTV[2, 1, ids[2]]), rel=1e-5)


def test_a_translator_shows_its_target_and_where_it_looked(page, root):
    answer = page("/page/look", {"run": identity("pairs"), "text": "ab"}, root=root).json()
    [pair] = answer["pairs"]
    assert pair["source"] == "ab"
    assert [heads["kind"] for heads in pair["kinds"]][-1] == "cross-attention"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/page/look", {"run": "../../etc", "text": "a"}, "there is no run"),
        ("/page/look", {"run": "RUN", "text": "a", "tokens": 10**9}, "tokens"),
        ("/page/look", {"run": "RUN", "text": "a", "ids": [10**6]}, "27 tokens"),
        ("/page/look", {"run": "RUN", "text": "ANNA"}, "'A'"),
        ("/page/again", {"run": "RUN", "text": "a", "ids": [0], "shown": [[99]], "temperature": 1}, "27"),
        ("/page/attention", {"run": "RUN", "text": "a" * 99}, "context"),
        ("/page/attention", {"run": "MLP", "text": "a"}, "attention needs a transformer"),
        ("/page/lens", {"run": "MLP", "text": "a"}, "the lens needs a transformer"),
        ("/page/lens", {"run": "RUN", "text": "a" * 99}, "up to 24 (the model's context)"),
        ("/page/experiments/start", {"name": "no-such"}, "there is no experiment"),
        ("/page/curves?runs=", None, "no run"),
        ("/page/curves?runs=RUN&axis=evil", None, "axis"),
        ("/page/curves?runs=RUN&width=1e9", None, "width"),
    ],
)
def test_a_mistake_is_said(page, path, body, said, root, shown):
    run, mlp = identity("three/seed-0"), identity("mlp")
    given = body and {key: {"RUN": run, "MLP": mlp}.get(str(value), value) for key, value in body.items()}
    answer = page(path.replace("RUN", run), given, root=root if mlp in (given or {}).values() else shown)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_run_whose_identity_looks_like_a_number_is_drawn(tmp_path, page):
    name = "run-2203"
    assert identity(name) == "9527626118604995"
    write_log(make_run(tmp_path / name, characters_tokenizer("abc", end=True), made=None), 20)
    answer = page(f"/page/curves?runs={identity(name)}&width=300&log=true&smooth=1.5", root=tmp_path)
    assert [line["n"] for line in answer.json()["series"]] == [20]


def test_a_run_whose_name_is_not_utf8_is_looked_into(tmp_path, page):
    try:
        make_run(tmp_path / os.fsdecode(b"n\xff"), characters_tokenizer("abc", end=True))
    except OSError:
        pytest.skip("this file system has no such names")
    [group] = page("/page/runs", root=tmp_path).json()["groups"]
    assert group["name"] == "n\ufffd"
    answer = page("/page/look", {"run": group["runs"][0]["id"], "text": "ab"}, root=tmp_path)
    assert [token["text"] for token in answer.json()["tokens"]] == ["a", "b"]


def test_results_are_listed_with_their_files(page):
    found = {one["name"]: one for one in page("/page/results").json()}
    assert found["compare-one"]["verdicts"] == [
        {"word": "better", "sentence": "arm against base: better: -0.1 [-0.2, -0.05]"}
    ]
    assert found["experiments/coin"]["claims"][0]["verdict"] == "holds"
    assert found["compare-one"]["files"] == ["comparison.json", "comparison.svg", "report.html"]


def test_a_result_that_cannot_be_read_is_named(tmp_path, page):
    save(tmp_path / "half", "comparison.json", {"corpus": "a"})
    [found] = page("/page/results", root=tmp_path).json()
    assert "comparison.json cannot be read" in found["damaged"]


def test_a_file_is_shown_where_it_can_reach_nothing(page):
    answer = page(f"/page/artefact/{identity('comparison compare-one')}/report.html")
    assert answer.text == "<h1>report</h1>"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "connect-src" not in policy
    config = page(f"/page/artefact/{identity('prose')}/config.json")
    assert config.json()["seed"] == 5


@pytest.mark.parametrize(
    "entry", ["..%2Fprose%2Fconfig.json", "%2Fetc%2Fpasswd", "link.html", "lock", "metrics.jsonl", ""]
)
def test_a_file_that_is_not_listed_is_not_shown(tmp_path, entry):
    save(tmp_path / "one", "comparison.json", comparison())
    make_run(tmp_path / "run", characters_tokenizer("abc", end=True))
    (tmp_path / "secret.html").write_text("secret")
    (tmp_path / "one/link.html").symlink_to(tmp_path / "secret.html")

    async def run():
        async with asking(tmp_path) as client:
            for id in (identity("comparison one"), identity("run")):
                answer = await client.get(f"/page/artefact/{id}/{entry}")
                assert answer.status_code in (400, 404)
                assert "secret" not in answer.text.replace(entry, "")

    asyncio.run(run())


def test_the_token_is_in_the_page_only_where_no_other_machine_reads_it(page):
    assert f'<meta name="token" content="{TOKEN}">' in page("/").text
    strict = Policy(POLICY.hosts, TOKEN, always=True)
    answer = page("/", policy=strict)
    assert answer.status_code == 200
    assert TOKEN not in answer.text
    assert page("/static/app.js", policy=strict).headers["content-type"].startswith("text/javascript")
    assert page("/page/runs", policy=strict).status_code == 401
    assert page("/static/nothing.js").status_code == 404


@pytest.mark.slow
def test_an_experiment_runs_says_its_claims_and_can_be_stopped(tmp_path):
    async def run():
        async with asking(tmp_path) as client:
            post = lambda path, body: client.post(path, content=json.dumps(body), headers=HEADERS)  # noqa: E731
            begun = await post("/page/experiments/start", {"name": "attention-by-hand"})
            assert begun.json()["running"]
            second = await post("/page/experiments/start", {"name": "coin-estimators"})
            assert "is running" in second.json()["error"]["message"]
            end = time.monotonic() + 600
            while (state := (await client.get("/page/job")).json())["running"]:
                assert time.monotonic() < end
                await asyncio.sleep(0.2)
            assert state["code"] == 0, state["lines"]
            assert any(line.startswith("holds: ") for line in state["lines"])
            [result] = (await client.get("/page/results")).json()
            assert result["name"] == "experiments/attention-by-hand-quick"
            await post("/page/experiments/start", {"name": "what-to-label", "quick": False})
            await post("/page/job/stop", {})
            while (state := (await client.get("/page/job")).json())["running"]:
                assert time.monotonic() < end
                await asyncio.sleep(0.1)
            assert state["stopped"]
            assert state["code"] != 0

    asyncio.run(run())


def test_many_runs_are_listed_before_all_are_read(tmp_path, monkeypatch):
    first = make_run(tmp_path / "a", characters_tokenizer("abc", end=True)).folder
    for number in range(30):
        copy_run(first, f"run-{number}")
    monkeypatch.setattr("windtunnel.serve.index.PATIENCE", 0.0)
    index = Index(tmp_path)
    assert index.table()["unread"] >= 0
    wait_for(lambda: len(index.table()["groups"]) == 31, "reading 31 runs")
    assert open_run(first).folder == index.run(identity("a")).folder


def test_what_is_vendored_is_as_it_was_released():
    stated = dict(reversed(line.split()) for line in (OWN / "VENDORED").read_text().splitlines()[2:])
    assert set(stated) == {path.name for path in OWN.iterdir() if path.name.startswith("uPlot")}
    for name, digest in stated.items():
        assert sha256((OWN / name).read_bytes()).hexdigest() == digest


def test_every_file_of_the_page_is_served(page):
    for name in STATIC:
        assert page(f"/static/{name}").status_code == 200, name

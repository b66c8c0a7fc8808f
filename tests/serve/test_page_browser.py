"""The page in a real browser: every view is opened, used, photographed and judged by axe-core, and no name, text or
number from elsewhere runs as a script."""

import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, Browser
from served import POLICY, SIZES, TOKEN, make_run, running
from shown import comparison, copy_run, loss, make_folder, outcome, save, write_log

from patience import wait_for
from windtunnel.serve.index import identity
from windtunnel.serve.safety import Policy
from windtunnel.text.tokenizers import Tokenizer, bytes_tokenizer, characters_tokenizer
from windtunnel.training.disk import locked

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")]
WINDOWS = [(360, False), (360, True), (800, False), (800, True), (1920, False), (1920, True)]
AXE = "axe-core-4.14.1"
PICTURES = os.environ.get("WINDTUNNEL_PICTURES")
"""A folder that the photographs are kept in; else they go with the test's."""


@pytest.fixture(scope="module")
def browser():
    found = Browser()
    yield found
    found.close()


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def site(shown):
    with running(shown) as server:
        yield server.url


@pytest.fixture(scope="module")
def axe():
    """The source of axe-core, which npm fetches once."""
    script = Path(tempfile.gettempdir()) / f"{AXE}.min.js"
    if not script.exists():
        if shutil.which("npm") is None:
            pytest.skip("needs npm, to fetch axe-core")
        with tempfile.TemporaryDirectory() as folder:
            command = ["npm", "pack", AXE.replace("core-", "core@"), "--silent"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"npm cannot fetch {AXE}: {done.stderr.strip()[-200:]}")
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                script.write_bytes(archive.extractfile("package/axe.min.js").read())
    return script.read_text(encoding="utf-8")


@pytest.fixture
def tab(browser):
    """tab(url, width, dark): an open page, which must have had no problem and asked nobody else at the end."""
    opened = []

    def once(url, width=1280, dark=False):
        page = browser.tab(width, 900, dark)
        opened.append((page, urlsplit(url).netloc))
        page.go(url)
        return page

    yield once
    for page, host in opened:
        assert page.problems == []
        assert page.dialogs == []
        assert {urlsplit(one).netloc for one in page.addresses if not one.startswith(("data:", "blob:"))} == {host}
        page.close()


def judged(page, axe):
    """What axe-core finds that is serious or critical."""
    found = page.run(f"{axe}; axe.run().then((found) => JSON.stringify(found.violations))")
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"]][:3])
        for one in json.loads(found)
        if one["impact"] in ("serious", "critical")
    ]


def use_runs(page):
    page.wait("document.querySelectorAll('tbody tr').length >= 3")
    page.run("[...document.querySelectorAll('.runs tbody tr')].find((r) => r.innerText.includes('three'))"
             ".querySelector('input').click()")  # fmt: skip
    page.wait("document.querySelector('.chart canvas')")
    page.wait("document.querySelector('details.run')")
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


def use_look(page):
    page.wait("document.querySelectorAll('#run option').length > 0")
    page.run(f"document.querySelector('#run').value = '{identity('three/seed-0')}'")
    page.click("#text")
    page.type("anna")
    page.run("document.querySelector('#tokens').value = '6'")
    page.click("form button")
    page.wait("document.querySelectorAll('.text .token').length > 4")
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.wait("document.querySelector('.lens td') && document.querySelector('.heads canvas')")


def use_comparisons(page):
    page.wait("document.querySelector('.verdict.better')")
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.wait("document.querySelector('.figures img').naturalWidth === 40")


def use_experiments(page):
    page.wait("document.querySelectorAll('#name option').length > 10 && document.querySelector('.claims')")


USES = {"runs": use_runs, "look": use_look, "comparisons": use_comparisons, "experiments": use_experiments}


@pytest.mark.parametrize("view", list(USES))
def test_each_view_fits_and_can_be_read_by_everybody(view, tab, site, axe, tmp_path):
    for width, dark in WINDOWS:
        page = tab(f"{site}/#/{view}", width, dark)
        USES[view](page)
        folder = Path(PICTURES) if PICTURES else tmp_path
        page.picture(folder / f"{view}-{width}-{'dark' if dark else 'light'}.png")
        assert page.run("document.documentElement.scrollWidth") <= width
        assert judged(page, axe) == []


def test_runs_are_sorted_filtered_and_read_by_keyboard(tab, site):
    page = tab(f"{site}/")
    names = "[...document.querySelectorAll('.runs tbody th')].map((one) => one.querySelector('.own').innerText)"
    page.wait(f"{names}.length === 3")
    page.run("document.querySelector('.runs thead button').focus()")
    page.press("Enter")
    assert page.run(names) == ["hurt", "prose", "three"]
    assert page.run("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "ascending"
    page.press("Enter")
    assert page.run(names) == ["three", "prose", "hurt"]
    page.click("#filter")
    page.type("THREE")
    assert page.run(names) == ["three"]
    assert page.run("document.querySelector('.runs tbody button').innerText") == "▸ 3 seeds"
    page.run("document.querySelector('.runs tbody button').focus()")
    page.press("Enter")
    page.wait(f"{names}.length === 4")
    page.run("document.querySelectorAll('.runs tbody input')[2].focus()")
    page.press(" ")
    page.wait("document.querySelector('.legend-table tbody th')?.innerText.includes('three/seed-1')")
    assert page.run("location.hash") == f"#/runs?s={identity('three/seed-1')}"
    page.run("document.querySelector('.chart').focus()")
    page.press("ArrowRight", "ArrowRight", "ArrowRight")
    cells = page.run("[...document.querySelectorAll('.legend-table tbody td')].map((one) => one.innerText)")
    assert cells[0] == "3"
    assert float(cells[1]) == pytest.approx(loss(3, 1), abs=1e-3)


def test_a_drag_zooms_and_escape_shows_all(tab, site):
    page = tab(f"{site}/#/runs?s={identity('prose')}")
    page.wait("document.querySelector('.u-over')")
    page.run("document.querySelector('.chart').scrollIntoView({block: 'center'})")
    left, width, top = page.run("(({x, y, width, height}) => [x, width, y + height / 2])"
                                "(document.querySelector('.u-over').getBoundingClientRect())")  # fmt: skip
    page.addresses.clear()
    page.mouse("mouseMoved", left + 0.2 * width, top)
    page.mouse("mousePressed", left + 0.2 * width, top)
    for share in (0.3, 0.5, 0.6):
        page.mouse("mouseDragged", left + share * width, top)
    page.mouse("mouseReleased", left + 0.6 * width, top)
    wait_for(lambda: any("first=" in one for one in page.addresses), "asking for a part of the curve")
    [asked] = [one for one in page.addresses if "first=" in one]
    first, last = (float(re.search(f"{name}=([-0-9.e]+)", asked)[1]) for name in ("first", "last"))
    span = (last - first) / 3
    assert pytest.approx(first + span, abs=1) == 1 + 0.2 * 49
    assert pytest.approx(last - span, abs=1) == 1 + 0.6 * 49
    page.addresses.clear()
    page.run("document.querySelector('.chart').focus()")
    page.press("Escape")
    wait_for(lambda: any("curves?" in one for one in page.addresses), "asking for the whole curve")
    assert not any("first=" in one for one in page.addresses)


def test_a_run_that_is_trained_moves_under_ones_eyes(tab, tmp_path):
    run = make_run(tmp_path / "moves", characters_tokenizer("abc", end=True), made=None)
    write_log(run, 10, steps=40, end=False)
    with running(tmp_path) as server, locked(run.folder):
        page = tab(f"{server.url}/#/runs?s={identity('moves')}")
        page.wait("document.querySelector('.runs tbody')?.innerText.includes('10/0')")
        page.wait("document.querySelector('.runs tbody').innerText.includes('training')")
        page.run("document.querySelector('.runs tbody input').focus()")
        write_log(run, 30, steps=40, end=False)
        page.wait("document.querySelector('.runs tbody').innerText.includes('30/0')")
        assert page.run("document.activeElement.type") == "checkbox"
        page.wait("[...document.querySelectorAll('.legend-table td')].at(-1)?.innerText === '30'")


def test_a_token_tells_its_alternatives_and_a_text_goes_on_from_one(tab, site):
    page = tab(f"{site}/#/look")
    use_look(page)
    page.run("document.querySelector('.text .token').focus()")
    page.press("ArrowRight", "ArrowRight")
    assert page.run("document.querySelector('#panel h2').innerText") == "Token 3: n"
    other = page.run("document.querySelectorAll('#panel tbody tr')[1].cells[0].innerText.trim()")
    page.run("document.querySelectorAll('#panel tbody button')[1].click()")
    page.wait("document.querySelectorAll('.tree li').length === 2")
    written = page.run(
        "[...document.querySelectorAll('.text .token')].slice(0, 3).map((one) => one.innerText).join('')"
    )
    assert written == f"an{other}".replace("›", "")
    page.run("document.querySelector('.tree button').click()")
    assert page.run("document.querySelectorAll('.text .token')[3].innerText") == "a"
    page.run("document.querySelector('#again').value = '0.5'")
    page.click("form.controls:has(#again) button")
    page.wait("document.querySelector('#panel thead')?.innerText.includes('T = 0.5')")


def test_a_clicked_token_shows_where_it_looks(tab, site):
    page = tab(f"{site}/#/look")
    use_look(page)
    page.click(".heat .text .token:nth-of-type(3)")
    assert page.run("document.querySelector('#readout').innerText") == "Token 3, n, looks at:"
    shares = page.run("[...document.querySelectorAll('#rows tr')].map((row) => Number(row.cells[2].innerText))")
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(1, abs=2e-4)


def test_the_token_is_asked_for_once(browser, shown):
    with running(shown, Policy(POLICY.hosts, TOKEN, always=True)) as server:
        page = browser.tab()
        page.go(server.url)
        page.wait("document.querySelector('dialog[open] input')")
        page.click("dialog input")
        page.type(TOKEN)
        page.press("Enter")
        page.wait("document.querySelectorAll('.runs tbody tr').length === 3")
        assert page.run("document.querySelector('dialog')") is None
        page.go(f"{server.url}/#/comparisons")
        page.wait("document.querySelector('button.link')")  # which the same token gives
        page.close()


def test_an_experiment_is_started_and_stopped(tab, tmp_path):
    with running(tmp_path) as server:
        page = tab(f"{server.url}/#/experiments")
        page.wait("document.querySelectorAll('#name option').length > 10")
        page.run("document.querySelector('#name').value = 'coin-estimators'; document.querySelector('#quick').click()")
        page.click("form button")
        page.wait("document.querySelector('.lines .verdict')")
        page.wait("document.querySelector('p[role=status]').innerText.endsWith('has finished')")
        # One that takes minutes: it does not end by itself before it is stopped.
        page.run("document.querySelector('#name').value = 'gpt2-report'; document.querySelector('#quick').click()")
        page.click("form button")
        page.wait("document.querySelector('[role=status]').innerText.includes('gpt2-report is running')")
        page.click("section.panel button")
        page.wait("document.querySelector('p[role=status]').innerText.endsWith('was stopped')")


EVIL = [
    *r"""
<script>ran()</script>
</script><script>ran()</script>
<img src=x onerror=ran()>
<svg onload=ran()>
"><img src=x onerror=ran()>
'><svg/onload=ran()>
<iframe srcdoc='<script>parent.ran()</script>'>
javascript:ran()
JaVaScRiPt:ran()
data:text/html,<script>ran()</script>
{{ran()}}
${ran()}
{{constructor.constructor('ran()')()}}
<%= ran() %>
#{ran()}
`${ran()}`
</textarea><script>ran()</script>
</title><script>ran()</script>
</style><script>ran()</script>
<math><mtext><script>ran()</script>
<details open ontoggle=ran()>
<body onload=ran()>
<input autofocus onfocus=ran()>
<a href=javascript:ran()>x</a>
<object data=javascript:ran()>
<embed src=javascript:ran()>
<link rel=stylesheet href=javascript:ran()>
<base href=//evil.example>
<meta http-equiv=refresh content='0;url=javascript:ran()'>
<!--<script>ran()</script>-->
<x style=animation-name:x onanimationstart=ran()>
&lt;script&gt;ran()&lt;/script&gt;
\u003cscript\u003eran()
__proto__
constructor
toString
hasOwnProperty
%3Cscript%3Eran()%3C/script%3E
=ran()
@import 'x'
'; ran(); //
"; ran(); //
\'; ran(); //
onerror=ran()
url(javascript:ran())
""".strip().splitlines(),
    "\u202e<script>ran()</script>",
    "abc\u202edef",
    "\u2067<img src=x onerror=ran()>",
    "\u200b\u200d\ufeff",
    "a\u0300" * 9,
]
PAYLOADS = [*EVIL, *(f"n{place} {text}" for place, text in enumerate(EVIL))]
WATCH = "window.ran = () => { window.hasRun = true; }"


def evil_tokenizer():
    """Bytes, and every payload as a token."""
    data = json.loads(bytes_tokenizer(end=False).to_json())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    data["added_tokens"] = [{"id": 256 + i, "content": text, **flags} for i, text in enumerate(PAYLOADS)]
    return Tokenizer.from_json(json.dumps(data))


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """Payloads as names of runs, tokens, arms, claims and titles."""
    root = tmp_path_factory.mktemp("evil")
    first = make_run(root / "tokens", evil_tokenizer(), unit="text", sizes={**SIZES, "context_length": 256})
    write_log(first, 20)
    for text in PAYLOADS:
        if "/" not in text:
            copy_run(first.folder, text)
    for place, text in enumerate(PAYLOADS):
        save(
            root / "experiments" / f"c{place}", "comparison.json", comparison(text), f"<script>top.ran()</script>{text}"
        )
        data = outcome(text, statement=text, measured=text, verdict=text, published=text, id=text)
        save(root / "experiments" / f"o{place}", "outcome.json", data)
    return root


@pytest.fixture
def hostile(browser, evil):
    with running(evil) as server:
        page = browser.tab()
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        yield page, server.url
        assert page.run("window.hasRun") is None
        assert page.dialogs == []
        assert page.problems == []
        hosts = {urlsplit(one).netloc for one in page.addresses if not one.startswith("data:")}
        assert hosts == {urlsplit(server.url).netloc}
        kinds = "main :is(script, iframe, img, svg, object, embed, base, link, meta)"
        assert page.run(f"document.querySelectorAll('{kinds}').length") == 0
        page.close()


def test_names_of_runs_are_texts(hostile):
    page, url = hostile
    page.go(f"{url}/#/runs")
    names = {text for text in PAYLOADS if "/" not in text} | {"tokens"}
    page.wait(f"document.querySelectorAll('.runs tbody tr').length === {len(names)}")
    found = page.run("[...document.querySelectorAll('.runs tbody th .own')].map((one) => one.textContent)")
    assert set(found) == names
    page.run("[...document.querySelectorAll('.runs tbody input')].slice(0, 60).forEach((one) => one.click())")
    page.wait("document.querySelectorAll('.legend-table tbody tr').length === 60")
    page.wait("document.querySelectorAll('details.run').length > 10")


def test_prompts_and_tokens_are_texts(hostile):
    page, url = hostile
    page.go(f"{url}/#/look?run={identity('tokens')}")
    page.wait("document.querySelectorAll('#run option').length > 10")
    for first in range(0, len(PAYLOADS), 25):
        text = "|".join(PAYLOADS[first : first + 25])
        page.run(
            f"document.querySelector('#text').value = {json.dumps(text)}; document.querySelector('#tokens').value = '2'"
        )
        page.run("document.querySelector('.text')?.remove(); document.querySelector('form button').click()")
        page.wait("document.querySelector('.text .token')")
        shown = page.run("[...document.querySelectorAll('.text .token')].map((one) => one.textContent).join('')")
        assert "ran()" in shown
        page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        page.wait("document.querySelector('.lens td') && document.querySelector('.heads canvas')")
    page.run(f"location.hash = '#/look?text=' + encodeURIComponent({json.dumps(PAYLOADS[1])})")
    page.wait(f"document.querySelector('#text').value === {json.dumps(PAYLOADS[1])}")


@pytest.mark.parametrize(("view", "word"), [("comparisons", "verdict"), ("experiments", "claims")])
def test_labels_and_claims_are_texts(hostile, view, word):
    page, url = hostile
    page.go(f"{url}/#/{view}")
    page.wait(f"document.querySelectorAll('.result .{word}').length === {len(PAYLOADS)}")
    shown = page.run("document.querySelector('main').textContent")
    assert all(text in shown for text in PAYLOADS)


def test_a_report_runs_its_script_where_it_reaches_nothing(browser, evil):
    with running(evil) as server:
        page = browser.tab()
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        page.go(f"{server.url}/page/artefact/{identity('comparison experiments/c0')}/report.html")
        page.wait("document.readyState === 'complete'")
        assert page.run("window.origin") == "null"
        asked = f"fetch('{server.url}/page/runs').then(() => 'reached', () => 'refused')"
        assert page.run(asked) == "refused"
        page.close()

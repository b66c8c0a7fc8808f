"""What matters on a page stays in sight in a narrow window, as a browser lays it out."""

import json
import re
import shutil
import subprocess

import pytest

from windtunnel.report.outcome import Claim, Outcome
from windtunnel.report.outcome_page import outcome_page

CHROMIUM = shutil.which("chromium")
MEASURE = """<script>
const right = [...document.querySelectorAll(".claims tbody td")].map((cell) => cell.getBoundingClientRect().right);
document.title = JSON.stringify([innerWidth, Math.max(...right)]);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [480, 700, 1000])
def test_no_verdict_of_an_experiment_is_out_of_sight(width, tmp_path):
    long = "as many words as a claim has, and numbers: 0.1910 [0.1678, 0.2165] (n=1,000, proportion, 95 % Wilson)"
    claims = (Claim("000-Q2", long, "over 95 % of a long sentence in the source", long, "does not hold"),)
    page = outcome_page(Outcome("title", "what", {}, (), {}, claims, False, "signature"), {})
    (tmp_path / "page.html").write_text(page.replace("</body>", MEASURE), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    shown = subprocess.run([*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, check=True)
    inner, right = json.loads(re.search(r"<title>(.*)</title>", shown.stdout)[1])
    assert inner <= max(width, 500)
    assert right <= inner

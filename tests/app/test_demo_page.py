"""The page in a browser, where there is one: its labels keep clear of each other, at any width."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dueto.app.demo.page import page
from dueto.app.demo.story import Figures, Moment, Outcome, Story

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--virtual-time-budget=5000", "--dump-dom"),
)
WIDTHS = (340, 420, 600, 721, 900, 1180)
CHECK = """
<pre id="found"></pre>
<script>
addEventListener("load", async () => {
  const found = [];
  for (const width of WIDTHS) {
    document.querySelector("main").style.width = width + "px";
    dispatchEvent(new Event("resize"));
    const labels = [...document.querySelectorAll("text.label")], boxes = labels.map(l => l.getBoundingClientRect());
    const frame = document.querySelector(".picture").getBoundingClientRect();
    found.push(`width ${width}: ${labels.length > 10 ? "labelled" : "bare"}`);
    boxes.forEach((a, i) => {
      if (a.left < frame.left - 4 || a.right > frame.right + 4) found.push("outside: " + labels[i].firstChild.data);
      boxes.slice(i + 1).forEach((b, k) => {
        if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
          found.push(`${labels[i].firstChild.data} lies on ${labels[i + 1 + k].firstChild.data}`);
      });
    });
  }
  document.getElementById("found").textContent = found.join("; ");
});
</script>
</body>"""


def crowded() -> Story:
    """A call in which much happens at once, at both ends and in between."""
    rng = np.random.default_rng(7)
    lanes = ("caller", "agent", "gateway", "media", "control")
    times = sorted([*rng.uniform(0, 12, 40), *[0.001] * 8, *[6.0, 6.01, 6.02] * 3, *[11.98] * 8])
    moments = []
    for number, at in enumerate(times):
        lane = lanes[number % 5]
        text = "“" + "word " * int(rng.integers(1, 9)) + "”"
        moments.append(Moment(float(at), lane, "says", text, {"number": number}, float(at) + 0.5))
    pcm = rng.integers(-9000, 9000, 12 * 8000).astype("<i2").tobytes()
    figures = Figures(1.2, "media", 0.4, 23.0, 25.0, 40.0, 600, 590, 0)
    return Story(
        *("1-crowd", "Crowded", "All at once.", "Alice", "an-id", "audio_stream", 0.0, 8000),
        *(pcm, pcm, tuple(moments), figures, Outcome(), Outcome(), ""),
    )


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_no_label_lies_on_another_or_leaves_the_picture(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        page([crowded()]).replace("</body>", CHECK.replace("WIDTHS", str(list(WIDTHS)))), encoding="utf-8"
    )
    done = subprocess.run(
        [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'page.html'}"],
        capture_output=True,
        text=True,
        timeout=50,
    )
    found = re.search(r'<pre id="found">([^<]*)</pre>', done.stdout)
    assert found is not None, done.stderr[-2000:]
    assert found[1] == "; ".join(f"width {width}: labelled" for width in WIDTHS)

"""The plot holds every point inside its panel, and says what its axes are."""

import xml.etree.ElementTree as ET

from hypothesis import example, given
from hypothesis import strategies as st
from pulumi_vllm.client import chart

NAMES = ("output_throughput", "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms")
VALUES = st.floats(0.001, 1e7) | st.just(0.0)  # an answer of one token has no TPOT
ROWS = st.dictionaries(
    st.integers(1, 4096), st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES)), min_size=1, max_size=6
).map(lambda found: [{"concurrency": level, **row} for level, row in sorted(found.items())])
SVG = "{http://www.w3.org/2000/svg}"


@given(rows=ROWS, before=ROWS)
@example(rows=[dict.fromkeys(NAMES, 1.0) | {"concurrency": 1, "median_tpot_ms": 0.15}], before=[])
def test_every_point_lies_in_its_panel(rows, before):
    root = ET.fromstring(chart.draw("a <title> & more", rows, {"last run <&>": before}))
    width, height = float(root.get("width")), float(root.get("height"))
    points = [(float(one.get("cx")), float(one.get("cy"))) for one in root.iter(f"{SVG}circle")]
    drawn = sum(bool(row[name]) for row in rows for name in NAMES)
    assert len(points) == drawn + sum(bool(row["output_throughput"]) for row in before)
    assert all(0 < x < width and 60 < y < height - 30 for x, y in points)


def test_it_says_what_it_shows_and_leaves_out_what_was_stopped():
    row = {"concurrency": 8, **dict.fromkeys(NAMES, 5.0)}
    drawn = chart.draw("title", [row, {"concurrency": 16, "error": "stopped"}], {})
    texts = {"".join(one.itertext()) for one in ET.fromstring(drawn).iter(f"{SVG}text")}
    assert {"title", "output tokens/s", "latency, ms (log)", "requests at once (log)", "8"} <= texts
    assert {"this run", "median TTFT", "p99 TTFT", "median TPOT", "p99 TPOT"} <= texts
    assert "16" not in texts
    assert ET.fromstring(chart.draw("nothing", [], {})) is not None

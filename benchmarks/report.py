"""Write the results of the comparison as JSON, as tables and as a chart."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from phresh import __version__

OURS = "phresh"
BASELINE = "fastapi"
PACKAGES = (
    *("flask", "flask-smorest", "flask-sqlalchemy", "sqlalchemy", "psycopg2-binary", "gunicorn"),
    *("gevent", "fastapi", "pydantic", "uvicorn", "uvloop", "httptools", "asyncpg", "django"),
    *("djangorestframework", "psycopg"),
)
COLORS = {
    OURS: "#0072b2",
    BASELINE: "#999999",
    "fastapi-log": "#cccccc",
    "flask-orm": "#e69f00",
    "drf": "#009e73",
}
PEERS = [name for name in COLORS if name != OURS]

# By workload, number of connections and contender.
Summaries = dict[tuple[str, int, str], dict[str, Any]]


def machine() -> dict[str, Any]:
    """Return the machine and the versions, on which the figures depend."""
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True)  # noqa: S607
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
        "phresh": __version__,
        **{name: version(name) for name in PACKAGES},
        "wrk": (wrk.stdout or wrk.stderr).split()[1],
    }


def save(folder: Path, facts: dict[str, Any], results: Sequence[dict[str, Any]]) -> str:
    """Write bench.json, bench.md and bench.svg, and return the tables.

    :param results: one for each workload, number of connections and contender, with its rounds
    """
    summaries: Summaries = {}
    for each in _grouped(results):
        key = (each["workload"], each["connections"], each["contender"])
        summaries[key] = {**each, **_summary(each["rounds"])}
    facts_line = ", ".join(f"{name} {value}" for name, value in facts.items())
    tables = f"{facts_line}.\n\n{_ratios(summaries)}\n\n{_figures(summaries)}\n"
    document = {"facts": facts, "results": list(summaries.values())}
    (folder / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "bench.md").write_text(tables)
    (folder / "bench.svg").write_text(_chart(summaries))
    return tables


def _grouped(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results ordered by workload and number of connections, then as measured."""
    workloads = list(dict.fromkeys(each["workload"] for each in results))
    return sorted(
        results, key=lambda each: (workloads.index(each["workload"]), each["connections"])
    )


def _summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure, and the lowest and the highest rate."""
    rates = [each["rate"] for each in rounds]
    medians: dict[str, Any] = {"rate": median(rates), "min": min(rates), "max": max(rates)}
    for name in ("p50", "p99", "cpu"):
        figures = [each[name] for each in rounds if each[name] is not None]
        medians[name] = median(figures) if figures else None
    return medians


def _ratio(
    summaries: Summaries, workload: str, connections: int, numerator: str, denominator: str
) -> float | None:
    """Return the rate of the first contender divided by that of the second, if both are known."""
    one, other = (summaries.get((workload, connections, name)) for name in (numerator, denominator))
    return one["rate"] / other["rate"] if one and other else None


def _ratios(summaries: Summaries) -> str:
    """Return the table of the ratios between Phresh and its peers, and of the latencies."""
    rows = []
    for workload, connections in dict.fromkeys(key[:2] for key in summaries):
        case = (workload, connections)
        ratios = [_ratio(summaries, *case, OURS, peer) for peer in PEERS]
        latencies = [summaries.get((*case, name), {}).get("p99") for name in (OURS, BASELINE)]
        cells = [*(_number(each, 2) for each in ratios), *(_number(each, 1) for each in latencies)]
        rows.append([workload, connections, *cells])
    heads = [*(f"{OURS} / {peer}" for peer in PEERS), f"p99 ms {OURS}", f"p99 ms {BASELINE}"]
    return _table(["workload", "connections", *heads], rows)


def _figures(summaries: Summaries) -> str:
    rows = []
    for (workload, connections, name), each in summaries.items():
        rate = f"{each['rate']:,.0f} ({each['min']:,.0f}–{each['max']:,.0f})"
        times = [_number(each["p50"], 1), _number(each["p99"], 1), _number(each["cpu"], 2)]
        ratio = _number(_ratio(summaries, workload, connections, name, OURS), 2)
        rows.append([workload, connections, name, rate, *times, ratio])
    heads = ["requests/s (min–max)", "p50 ms", "p99 ms", "CPU s / 1,000 requests", f"/ {OURS}"]
    return _table(["workload", "connections", "contender", *heads], rows)


def _number(figure: float | None, digits: int) -> str:
    return "–" if figure is None else f"{figure:,.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


# The chart: one panel for each number of connections, in it a group of bars for each workload, and
# a line at the rate of the baseline.
WIDTH, PANEL, MARGIN, TOP = 1400, 260, 50, 60


def _chart(summaries: Summaries) -> str:
    workloads = list(dict.fromkeys(key[0] for key in summaries))
    panels = sorted({key[1] for key in summaries})
    names = [name for name in COLORS if any(key[2] == name for key in summaries)]
    ratios = {
        (*case, name): _ratio(summaries, *case, name, BASELINE) or 0
        for case in dict.fromkeys(key[:2] for key in summaries)
        for name in names
    }
    highest = max([1, *ratios.values()]) * 1.1
    group = (WIDTH - 2 * MARGIN) / len(workloads)
    bar = group * 0.8 / len(names)
    parts = [_text(MARGIN, 24, f"Requests per second, {BASELINE} = 1", size=16)]
    for i, name in enumerate(names):
        x = MARGIN + 110 * i
        parts += [_box(x, 36, 12, 12, COLORS[name]), _text(x + 18, 47, name)]
    for number, connections in enumerate(panels):
        top = TOP + number * PANEL
        floor = top + PANEL - 40
        scale = (floor - top - 30) / highest
        parts.append(_text(MARGIN, top + 20, f"{connections} connections", size=14))
        for i, workload in enumerate(workloads):
            left = MARGIN + i * group
            parts.append(_text(left + group * 0.4, floor + 18, workload, anchor="middle"))
            for j, name in enumerate(names):
                ratio = ratios.get((workload, connections, name), 0)
                x, y = left + j * bar, floor - ratio * scale
                parts.append(_box(x, y, bar - 2, ratio * scale, COLORS[name]))
                middle = x + bar / 2 - 1
                parts.append(_text(middle, y - 4, f"{ratio:.2f}", size=10, anchor="middle"))
        level = floor - scale
        line = f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{level:.1f}" y2="{level:.1f}"'
        parts.append(f'{line} stroke="#333333" stroke-dasharray="4 4"/>')
    height = TOP + len(panels) * PANEL
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
    start += ' font-family="sans-serif">'
    return "\n".join([start, _box(0, 0, WIDTH, height, "#ffffff"), *parts, "</svg>\n"])


def _box(x: float, y: float, width: float, height: float, color: str) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{color}"/>'


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    attributes = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {attributes} fill="#111111">{escape(text)}</text>'

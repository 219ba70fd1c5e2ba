"""A bench as one SVG: throughput above, latency below, over concurrency."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Rows = Sequence[Mapping[str, Any]]
    Scale = Callable[[Sequence[float]], tuple[list[float], Callable[[float], float]]]

_WIDTH, _LEFT, _RIGHT, _HEIGHT = 760, 78, 24, 250  # pixels; the height is one panel's
_FONT = 'font-family="sans-serif" font-size="12"'
_LABEL = 'text-anchor="middle" stroke="#fff" stroke-width="4" paint-order="stroke"'
_BLUE, _ORANGE, _GREEN, _GREY = "#1f6fb4", "#d1571b", "#2a8a4a", "#8a8a8a"


def draw(title: str, rows: Rows, others: Mapping[str, Rows]) -> str:
    """The SVG; `others` are earlier rows by name, drawn beside the throughput."""
    ours = [row for row in rows if "error" not in row]
    runs = {
        "this run": ours,
        **{name: [r for r in more if "error" not in r] for name, more in others.items()},
    }
    throughput = [
        (name, "output_throughput", some, colour, dash)
        for (name, some), colour, dash in zip(
            runs.items(), (_BLUE, _GREY, _GREEN), ("", "7 4", "2 3"), strict=False
        )
    ]
    latency = [
        (f"{word} {key.upper()}", f"{name}_{key}_ms", ours, colour, dash)
        for key, colour in (("ttft", _BLUE), ("tpot", _ORANGE))
        for word, name, dash in (("median", "median", ""), ("p99", "p99", "4 3"))
    ]
    levels = sorted({row["concurrency"] for some in runs.values() for row in some}) or [1]
    height = 2 * _HEIGHT + 190
    size, middle = f'width="{_WIDTH}" height="{height}"', (_LEFT + _WIDTH - _RIGHT) / 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_WIDTH} {height}" {_FONT}>',
            f'<rect {size} fill="#fff"/>',
            f'<text x="{_LEFT}" y="24" font-size="13" font-weight="bold">{escape(title)}</text>',
            *_panel(70, "output tokens/s", throughput, levels, _linear),
            *_panel(_HEIGHT + 140, "latency, ms (log)", latency, levels, _logarithmic),
            f'<text x="{middle}" y="{height - 12}" text-anchor="middle">requests at once (log)</text>',
            "</svg>",
            "",
        ]
    )


def _panel(
    top: int,
    unit: str,
    series: Sequence[tuple[str, str, Rows, str, str]],
    levels: Sequence[int],
    scale: Scale,
) -> list[str]:
    values = [row[field] for _, field, some, *_ in series for row in some if row.get(field)]
    ticks, share = scale(values or [1.0])
    bottom, right, legend = top + _HEIGHT, _WIDTH - _RIGHT, float(_LEFT)
    span = math.log2(levels[-1] / levels[0]) or 1.0

    def x(level: int) -> float:
        return _LEFT + 20.0 + (right - _LEFT - 60) * (math.log2(level / levels[0]) / span)

    def y(value: float) -> float:
        return bottom - _HEIGHT * share(value)

    middle = f'x="16" y="{top + _HEIGHT / 2}" transform="rotate(-90 16 {top + _HEIGHT / 2})"'
    out = [f'<text {middle} text-anchor="middle">{unit}</text>']
    for tick in ticks:
        out.append(f'<path d="M{_LEFT} {y(tick):.1f}H{right}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,g}</text>')
    for level in levels:
        out.append(f'<path d="M{x(level):.1f} {bottom}v5" stroke="#444"/>')
        out.append(f'<text x="{x(level):.1f}" y="{bottom + 19}" text-anchor="middle">{level}</text>')
    out.append(f'<path d="M{_LEFT} {top}V{bottom}H{right}" fill="none" stroke="#444"/>')
    labels, aside = [], -9 if scale is _linear else 18  # last, so that no line crosses them
    for name, field, some, colour, dash in series:
        points = [(x(row["concurrency"]), y(row[field]), row[field]) for row in some if row.get(field)]
        if not points:
            continue
        style = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash or "none"}"'
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in points)
        out.append(f'<polyline points="{line}" fill="none" {style}/>')
        for px, py, value in points:
            out.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>')
            if not dash:
                shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits
                labels.append(
                    f'<text x="{px:.1f}" y="{py + aside:.1f}" fill="{colour}" {_LABEL}>{shown}</text>'
                )
        out.append(f'<path d="M{legend:.0f} {top - 18}h24" {style}/>')
        out.append(f'<text x="{legend + 30:.0f}" y="{top - 14}">{escape(name)}</text>')
        legend += 54 + 6.6 * len(name)
    return out + labels


def _linear(values: Sequence[float]) -> tuple[list[float], Callable[[float], float]]:
    """From nothing to a round figure above the largest, in 4 to 8 steps."""
    largest = max(values)
    power = 10.0 ** math.floor(math.log10(largest))
    step = next(power * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if largest / (power * part) < 8)  # noqa: PLR2004 - ticks
    top = step * math.ceil(largest * 1.05 / step)
    return [step * index for index in range(round(top / step) + 1)], lambda value: value / top


def _logarithmic(values: Sequence[float]) -> tuple[list[float], Callable[[float], float]]:
    """1, 2 and 5 of each power of ten around all values, with room for a label below the lowest."""
    least, most = min(values) / 1.5, max(values) * 1.05
    # One power more at each end: a logarithm just beside a whole number rounds to it.
    powers = range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 2)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    below = [tick for tick in ticks if tick <= least]
    above = [tick for tick in ticks if tick >= most]
    ticks = [below[-1], *(tick for tick in ticks if least < tick < most), above[0]]
    span = math.log10(ticks[-1] / ticks[0])
    return ticks, lambda value: math.log10(value / ticks[0]) / span

# What it is: one row of the result table, and how rows are printed and kept.
# Who calls it: every figure makes rows; bench/run prints them.
# Never: measures anything.
import json
import os
import statistics
from dataclasses import asdict, dataclass, field

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "bench")


@dataclass
class Row:
    what: str
    baseline: float
    ours: float
    unit: str
    ratio: float = None   # median of the ratios of the pairs
    spread: str = ""      # of those ratios
    bound: str = ""       # "at least 0.95"
    met: bool = None      # None: shown for information
    note: str = ""
    detail: dict = field(default_factory=dict)


def compare(what, baseline, ours, unit, at_least=None, at_most=None, note="", detail=None):
    """A row of alternating runs: baseline[i] and ours[i] were measured one after the other."""
    ratios = [mine / theirs for theirs, mine in zip(baseline, ours)]
    ratio = statistics.median(ratios)
    row = Row(what, statistics.median(baseline), statistics.median(ours), unit, ratio,
              f"{min(ratios):.2f}–{max(ratios):.2f}", note=note,
              detail={"baseline": baseline, "ours": ours, **(detail or {})})
    if at_least is not None:
        row.bound, row.met = f"≥ {at_least:g}", ratio >= at_least
    if at_most is not None:
        row.bound, row.met = f"≤ {at_most:g}", ratio <= at_most
    return row


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1000 else f"{value:.3g}"


def render(rows):
    titles = ("what", "baseline", "ours", "", "ratio", "spread", "bound", "met")
    lines = [titles]
    for row in rows:
        lines.append((row.what, number(row.baseline), number(row.ours), row.unit,
                      "" if row.ratio is None else f"{row.ratio:.2f}", row.spread, row.bound,
                      {None: "", True: "yes", False: "NO"}[row.met]))
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    right = (1, 2, 4)
    text = []
    for n, line in enumerate(lines):
        cells = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(line)]
        text.append("  ".join(cells).rstrip())
        if n == 0:
            text.append("  ".join("─" * width for width in widths))
    text += [""] + [f"{row.what}: {row.note}" for row in rows if row.note]
    return "\n".join(text)


def save(header, rows):
    os.makedirs(OUT, exist_ok=True)
    path = os.path.abspath(os.path.join(OUT, "bench.json"))
    with open(path, "w", encoding="utf-8") as out:
        json.dump({"header": header, "rows": [asdict(row) for row in rows]}, out, indent=1, ensure_ascii=False)
    return path

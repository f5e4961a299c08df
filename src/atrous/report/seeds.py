"""Scores of several seeds as text of 80 columns."""

from atrous.report.tables import Table
from atrous.text import amount, percent, percent_range
from atrous.train.seeds import SeedScores


def seeds_text(scores: SeedScores) -> str:
    """Return a row for each seed, with the 95 % interval of its images, then mean and spread."""
    seeds = amount(len(scores.seeds), "seed")
    spreads = scores.spreads()
    if not spreads:
        return f"{seeds} trained; without a split val there are no scores"
    columns: dict[str, list[str]] = {}
    for protocol, tables in scores.by_protocol().items():
        spread = spreads[protocol]
        rows = [*scores.miou()[protocol], spread.mean, spread.std, spread.min, spread.max]
        columns[protocol] = list(map(percent, rows))
        columns[f"{protocol} 95 %"] = [
            percent_range(*(float("nan") if end is None else end for end in table["interval"]))
            for table in tables
        ] + [""] * 4
    columns["step"] = [f"{table['step']:,}" for table in scores.scores] + [""] * 4
    names = [f"seed {seed}" for seed in scores.seeds]
    names += ["mean", "standard deviation", "lowest", "highest"]
    table = Table(names=names, columns=columns)
    first = scores.scores[0]
    images = amount(first["images"], "image")
    return f"mIoU of {seeds} on {images} of {first['split']}, by protocol:\n{table.to_text()}"

"""What `atrous evaluate` says: one evaluation as text of 80 columns, and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.evaluate import Tally
from atrous.metrics import Scores
from atrous.metrics.confusion import Pair, TreeLevel
from atrous.metrics.interval import Comparison, Interval
from atrous.metrics.protocols import PROTOCOLS, number, percent

SHOWN = 10
"""Of more than four times as many classes, so many of the best and of the worst are printed."""
SIGNIFICANT = 0.05
"""Two models are told apart if chance alone would part them as far less often than this."""
WIDTH = 80


@dataclass(frozen=True, kw_only=True, eq=False)
class Rival:
    """The other model of a comparison, on the same images."""

    name: str
    miou: float
    comparison: Comparison


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """All that one call has found out."""

    name: str
    """What was scored: "camvid (int8, onnxruntime, 2 threads)"."""
    data: str
    split: str
    here: int
    """Images of the split that are here; all are scored, or a part."""
    missing: int
    """Images of the split's list that are not here."""
    classes: tuple[str, ...]
    tally: Tally
    scores: Scores
    interval: Interval
    tree: Sequence[TreeLevel] = ()
    pairs: Sequence[Pair] | None = None
    rival: Rival | None = None

    @property
    def num_images(self) -> int:
        """How many images were scored."""
        return len(self.tally.confusion.images)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; docs/evaluation.md describes it."""
        document: dict[str, Any] = {
            "model": self.name,
            "data": self.data,
            "split": self.split,
            "images": self.num_images,
            "missing": self.missing,
            **self.scores.to_dict(self.classes),
            "interval": [number(end) for end in self.interval],
        }
        if self.tally.boundary is not None:
            document |= self.tally.boundary.scores().to_dict(self.classes)
        if self.tally.calibration is not None:
            rows = self.tally.calibration.reliability()
            document["ece"] = number(self.tally.calibration.ece())
            document["reliability"] = {
                name: [None if np.isnan(x) else x for x in column.tolist()]
                for name, column in rows._asdict().items()
            }
        if self.rival is not None:
            document["against"] = {
                "model": self.rival.name,
                "miou": number(self.rival.miou),
                **{key: number(x) for key, x in self.rival.comparison._asdict().items()},
            }
        if self.tree:
            document["tree"] = [level.scores.to_dict(level.names) for level in self.tree]
        if self.pairs is not None:
            document["pairs"] = [
                pair._asdict()
                | {"true": self.classes[pair.true], "predicted": self.classes[pair.predicted]}
                for pair in self.pairs
            ]
        return document | {"confusion": self.tally.confusion.matrix.tolist()}

    def __str__(self) -> str:
        """Everything for people: the means, the classes, then what was asked for besides."""
        boundary = self.tally.boundary
        lines = title(self.name, self.data, self.split, self.here, self.missing)
        lines += self._means()
        columns = {"IoU": self.scores.iou, "acc": self.scores.acc}
        if boundary is not None:
            columns |= {"b-IoU": boundary.scores().iou, "b-F": boundary.scores().f}
        lines += class_table(self.classes, columns)
        for level in self.tree[:-1]:  # the last one holds the classes again
            scores = level.scores
            lines.append(
                f"{len(level.names)} groups of classes: mIoU {percent(scores.miou).strip()}"
            )
            lines += class_table(level.names, {"IoU": scores.iou, "acc": scores.acc})
        if self.pairs:
            lines.append("most frequent confusions, with their share of the true class:")
            lines += [self._pair(pair) for pair in self.pairs]
        if self.rival is not None:
            lines += verdict(self.rival, self.num_images)
        return "\n".join(lines)

    def _means(self) -> list[str]:
        scores, boundary, calibration = self.scores, self.tally.boundary, self.tally.calibration
        header = f"{images(self.num_images)}, {len(self.classes)} classes"
        header += f", protocol {scores.protocol}:"
        meaning = PROTOCOLS[scores.protocol]
        fits = len(header) + 1 + len(meaning) <= WIDTH
        lines = [
            f"{header} {meaning}" if fits else f"{header}\n  {meaning}",
            f"  mIoU {percent(scores.miou)}   fwIoU {percent(scores.fwiou)}"
            f"   mAcc {percent(scores.macc)}   pAcc {percent(scores.pacc)}",
        ]
        if self.interval.low == self.interval.low:  # two images or more
            low, high = (percent(end).strip() for end in self.interval)
            lines.append(f"  95 % interval of mIoU: {low} to {high}")
        if boundary is not None:
            edges = boundary.scores()
            lines.append(f"  boundary IoU {percent(edges.miou)}   boundary F {percent(edges.mf)}")
        if calibration is not None:
            lines.append(f"  expected calibration error {percent(calibration.ece())}")
        return lines

    def _pair(self, pair: Pair) -> str:
        true, predicted = self.classes[pair.true], self.classes[pair.predicted]
        return f"  {percent(pair.share)} %  {true[:28]} taken for {predicted[:28]}"


def title(name: str, data: str, split: str, here: int, missing: int) -> list[str]:
    """Say what was scored on what, and on how much of it if some of it is not here."""
    lines = [f"{name} on {data}, split {split}"]
    if missing:
        lines.append(f"{here:,} of {here + missing:,} images of the list are here")
    return lines


def class_table(names: Sequence[str], columns: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Rows of each class, best first by the first column, which a bar shows, too.

    Of many classes only the best and the worst are shown, of those that have a score.

    Args:
        names: K classes or groups; of a long name its end is shown.
        columns: heading of at most 5 letters -> (K,) fractions.
    """
    leading = next(iter(columns.values()))
    order = np.argsort(-np.nan_to_num(leading, nan=-1.0), kind="stable").tolist()  # NaN comes last
    width = min(max(map(len, names)), 36)
    lines = ["  ".join([f"  {'':{width}}", *(f"{heading:>5}" for heading in columns)])]
    if len(order) > 4 * SHOWN:
        scored = order[: np.count_nonzero(~np.isnan(leading))]
        best, worst = scored[:SHOWN], scored[SHOWN:][-SHOWN:]
        lines += [_row(k, names, columns, width) for k in best]
        lines.append(f"  ... {len(order) - len(best + worst)} more; --json has all of them")
        return lines + [_row(k, names, columns, width) for k in worst]
    return lines + [_row(k, names, columns, width) for k in order]


def _row(
    k: int, names: Sequence[str], columns: Mapping[str, NDArray[np.float64]], width: int
) -> str:
    """Class `k`: its name, its scores, and a bar as long as the first of them."""
    first = float(np.nan_to_num(next(iter(columns.values()))[k]))
    bar = "█" * round((72 - width - 7 * len(columns)) * first)
    cells = [f"  {names[k][-width:]:{width}}", *(percent(c[k]) for c in columns.values())]
    return "  ".join([*cells, bar]).rstrip()


def verdict(rival: Rival, num_images: int) -> list[str]:
    """Say in words whether the difference to the rival is more than chance."""
    difference, low, high, p_value = rival.comparison
    lines = [f"against {rival.name}: mIoU {percent(rival.miou).strip()}"]
    if np.isnan(p_value):
        return [*lines, f"  {images(num_images)}: too few to tell them apart"]
    better = "worse" if difference < 0 else "better"
    told = "told apart" if p_value < SIGNIFICANT else "not told apart"
    return [
        *lines,
        f"  {100 * abs(difference):.1f} {better} (95 %: {100 * low:+.1f} to {100 * high:+.1f},"
        f" p = {p_value:.2g}): {told} on {images(num_images)}",
    ]


def images(number: int) -> str:
    """Count images in words."""
    return "1 image" if number == 1 else f"{number:,} images"

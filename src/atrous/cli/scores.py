"""What `atrous evaluate` says: one evaluation as text of 80 columns, and as JSON."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from atrous.evaluation.score import Tally
from atrous.metrics import Scores
from atrous.metrics.confusion import Pair, TreeLevel, tree_scores
from atrous.metrics.interval import SIGNIFICANT, Comparison, Interval, interval
from atrous.metrics.protocols import PROTOCOLS, number, percent
from atrous.metrics.table import WIDTH, between, class_table, fit
from atrous.taxonomy import Taxonomy
from atrous.text import amount


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
    taxonomy: Taxonomy
    tally: Tally
    protocol: str
    tree: bool
    """Whether the groups are scored, too."""
    pairs: int
    """How many confusions are listed."""
    rival: Rival | None

    @cached_property
    def scores(self) -> Scores:
        """Of the classes."""
        return self.tally.confusion.scores(self.protocol)

    @cached_property
    def interval(self) -> Interval:
        """Of mIoU."""
        return interval(self.tally.confusion.counts(), self.protocol)

    @cached_property
    def levels(self) -> list[TreeLevel]:
        """Of the class tree, if it is scored; the last one holds the classes again."""
        if not self.tree:
            return []
        groups, classes = self.taxonomy.groups, self.taxonomy.classes
        return tree_scores(self.tally.confusion, groups, classes, self.protocol)

    @property
    def num_images(self) -> int:
        """How many images were scored."""
        return len(self.tally.confusion.images)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; docs/evaluation.md describes it."""
        classes, confusion = self.taxonomy.classes, self.tally.confusion
        document: dict[str, Any] = {
            "model": self.name,
            "data": self.data,
            "split": self.split,
            "images": self.num_images,
            "missing": self.missing,
            **self.scores.to_dict(classes),
            "interval": [number(end) for end in self.interval],
        }
        if self.tally.boundary is not None:
            document |= self.tally.boundary.scores().to_dict(classes)
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
        if self.levels:
            document["tree"] = [level.scores.to_dict(level.names) for level in self.levels]
        if self.pairs:
            document["pairs"] = [
                pair._asdict() | {"true": classes[pair.true], "predicted": classes[pair.predicted]}
                for pair in confusion.pairs(self.pairs)
            ]
        return document | {"confusion": confusion.matrix.tolist()}

    def __str__(self) -> str:
        """Everything for people: the means, the classes, then what was asked for besides."""
        boundary = self.tally.boundary
        lines = title(self.name, self.data, self.split, self.here, self.missing)
        lines += self._means()
        columns = {"IoU": self.scores.iou, "acc": self.scores.acc}
        if boundary is not None:
            columns |= {"b-IoU": boundary.scores().iou, "b-F": boundary.scores().f}
        lines += class_table(self.taxonomy.classes, columns)
        for level in self.levels[:-1]:
            scores = level.scores
            lines.append(
                f"{len(level.names)} groups of classes: mIoU {percent(scores.miou).strip()}"
            )
            lines += class_table(level.names, {"IoU": scores.iou, "acc": scores.acc})
        if pairs := self.tally.confusion.pairs(self.pairs):
            lines.append("most frequent confusions, with their share of the true class:")
            lines += [self._pair(pair) for pair in pairs]
        if self.rival is not None:
            lines += verdict(self.rival, self.num_images)
        return "\n".join(lines)

    def _means(self) -> list[str]:
        scores, boundary, calibration = self.scores, self.tally.boundary, self.tally.calibration
        classes = amount(self.taxonomy.num_classes, "class", "classes")
        header = f"{amount(self.num_images, 'image')}, {classes}, protocol {scores.protocol}:"
        meaning = PROTOCOLS[scores.protocol]
        fits = len(header) + 1 + len(meaning) <= WIDTH
        lines = [
            f"{header} {meaning}" if fits else f"{header}\n  {meaning}",
            f"  mIoU {percent(scores.miou)}   fwIoU {percent(scores.fwiou)}"
            f"   mAcc {percent(scores.macc)}   pAcc {percent(scores.pacc)}",
        ]
        if ends := between(*self.interval):
            lines.append(f"  95 % interval of mIoU: {ends}")
        if boundary is not None:
            edges = boundary.scores()
            lines.append(f"  boundary IoU {percent(edges.miou)}   boundary F {percent(edges.mf)}")
        if calibration is not None:
            lines.append(f"  expected calibration error {percent(calibration.ece())}")
        return lines

    def _pair(self, pair: Pair) -> str:
        true, predicted = (self.taxonomy.classes[k] for k in pair[:2])
        names = f"{fit(true, 28).rstrip()} taken for {fit(predicted, 28).rstrip()}"
        return f"  {percent(pair.share)} %  {names}"


def title(name: str, data: str, split: str, here: int, missing: int) -> list[str]:
    """Say what was scored on what, and on how much of it if some of it is not here."""
    lines = [f"{name} on {data}, split {split}"]
    if missing:
        lines.append(f"{here:,} of {here + missing:,} images of the list are here")
    return lines


def verdict(rival: Rival, num_images: int) -> list[str]:
    """Say in words whether the difference to the rival is more than chance."""
    difference, low, high, p_value = rival.comparison
    lines = [f"against {rival.name}: mIoU {percent(rival.miou).strip()}"]
    if np.isnan(difference):
        return [*lines, "  one of the two mIoU is undefined, and so is their difference"]
    if np.isnan(p_value):
        return [*lines, f"  {amount(num_images, 'image')}: too few to tell them apart"]
    better = "worse" if difference < 0 else "better"
    told = "told apart" if p_value < SIGNIFICANT else "not told apart"
    return [
        *lines,
        f"  {100 * abs(difference):.1f} {better} (95 %: {100 * low:+.1f} to {100 * high:+.1f},"
        f" p = {p_value:.2g}): {told} on {amount(num_images, 'image')}",
    ]

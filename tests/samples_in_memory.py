"""Truth that no file holds."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from atrous.data.sample import Sample
from atrous.evaluation.evaluate import Truth
from atrous.taxonomy import Taxonomy


class Samples(list[Sample]):
    """Samples as a split has them."""

    missing = 0

    @property
    def keys(self) -> list[str]:
        return [sample.key for sample in self]


def truth_of(taxonomy: Taxonomy, samples: Sequence[Sample], missing: int = 0) -> Truth:
    """These samples as a whole split."""
    split = Samples(samples)
    split.missing = missing
    dataset: Any = SimpleNamespace(name=taxonomy.name, taxonomy=taxonomy)
    return Truth(dataset, "val", split, range(len(split)))  # type: ignore[arg-type]

"""The table of published weights."""

import re

import pytest
from torchvision.models import segmentation

from atrous.data.schema import builtin_names
from atrous.weights.importers.layouts import LAYOUTS, TENSORFLOW
from atrous.weights.published import PUBLISHED


@pytest.mark.parametrize("entry", PUBLISHED.values(), ids=list(PUBLISHED))
def test_entries_name_a_layout_a_set_and_a_checksum(entry):
    digits = {"torchvision": 8, "mmseg": 8, TENSORFLOW: 64}
    assert entry.layout in (*LAYOUTS, TENSORFLOW)
    assert entry.data in builtin_names()
    assert bool(entry.miou) == bool(entry.protocol)
    assert entry.miou is None or 0.3 < entry.miou < 0.9
    assert entry.url.startswith("https://")
    assert re.fullmatch(f"[0-9a-f]{{{digits.get(entry.layout, 0)}}}", entry.sha256)
    assert entry.layout == TENSORFLOW or entry.sha256 in entry.url


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("torchvision/")])
def test_torchvision_says_the_same_of_its_own(name):
    weights = segmentation.__dict__[name.partition("/")[2]].__annotations__["weights"]
    (theirs,) = weights.__args__[0]
    assert PUBLISHED[name].url == theirs.url
    (scores,) = theirs.meta["_metrics"].values()
    assert PUBLISHED[name].miou == pytest.approx(scores["miou"] / 100)

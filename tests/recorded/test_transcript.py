"""What the comparison with a recording lets pass, and what it finds."""

from pathlib import Path

import pytest
from transcript import differences, masked

TABLE = """\
3 images, 4 classes, protocol pooled
  mIoU  20.0   fwIoU  64.3
              IoU    acc
  ground     80.2  100.0  ████████
{"iou": {"ground": 0.8016744289199379, "disc": 1e-09}, "pixels": [6936, 12]}
  "share": 0.5
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("images", "photos"),
        ("3 images", "4 images"),
        ("pooled\n", "pooled.\n"),
        ("20.0", "20.1"),
        ("20.0", "-20.0"),
        ("20.0", "20.000001"),
        ("mIoU  20.0", "mIoU  20"),
        (" 12]", " 12.0]"),
        ("0.5\n", "0.50\n"),
        ("20.0", "20.00"),
        ("  20.0", " 20.0"),
        ("    acc", "   acc"),
        ("  ground     80.2", "  ground    80.2"),
        ("████████", "███████"),
        ('"disc"', '"disk"'),
        (', "disc": 1e-09', ""),
        ("12]", "13]"),
        ("6936", "6935"),
        ("0.8016744289199379", "0.8016764289199379"),
        ("0.8016744289199379", "0.8017"),
        ("1e-09", "2e-09"),
        ("  mIoU  20.0   fwIoU  64.3\n", ""),
        ("{", "\n{"),
    ],
)
def test_each_change_is_found(old: str, new: str) -> None:
    assert old in TABLE
    assert list(differences(TABLE, TABLE.replace(old, new, 1), by_network=False))


def test_sums_in_another_order_pass() -> None:
    for number in ("0.8016744289199380", "0.80167442891993", "0.801674428"):
        other = TABLE.replace("0.8016744289199379", number)
        assert not list(differences(TABLE, other, by_network=False))
    other = TABLE.replace("0.5\n", "0.49999999999999994\n")
    assert not list(differences(TABLE, other, by_network=False))


@pytest.mark.parametrize(
    ("old", "new", "passes"),
    [
        ("20.0", "20.4", True),
        ("  20.0", "   9.7", False),
        ("20.0", "21.0", False),
        (" 80.2", "  9.9", False),
        (" 100.0", "  99.6", True),
        (" 100.0", " 99.6", False),
        ("0.8016744289199379", "0.798", False),
        ("0.8016744289199379", "0.7982234567899", True),
        ("0.8016744289199379", "0.7512234567899", False),
        ("6936", "6950", True),
        ("6936", "7936", False),
        ("12]", "13]", False),
        ("3 images", "4 images", False),
        ("ground", "disc", False),
    ],
)
def test_what_a_network_decides_may_differ_a_little(old: str, new: str, passes: bool) -> None:
    assert old in TABLE
    found = list(differences(TABLE, TABLE.replace(old, new, 1), by_network=True))
    assert bool(found) != passes


def test_masks() -> None:
    text = (
        "/here/a.png  41x30  paint (fp32, onnxruntime, 12 threads)  48 ms\n"
        '{"seconds": 0.1, "seconds_of": 1e-05, "commit": null}\n'
        '"numpy": "2.4.6"\n'
        "A Processor 9000, 1 thread\n"
        " 2/2  100%  0.04 s/step  left 00:00  loss 1.187\n"
    )
    assert masked(text, Path("/here"), by_network=False, measured=False) == (
        "<here>/a.png  41x30  paint (fp32, onnxruntime, <threads>) <time> ms\n"
        '{"seconds": <number>, "seconds_of": <number>, "commit": "<commit>"}\n'
        '"numpy": "<version>"\n'
        "<processor>, <threads>\n"
        " 2/2  100%  <time> s/step  left <time>  loss 1.187\n"
    )
    text = '  road   10.0 %  ████\n  sky   < 0.1 %\n{\n  "road": 0.1,\n  "sky": 4e-05\n}\n'
    assert masked(text, Path("/here"), by_network=True, measured=False) == (
        '  road 10.0 %\n{\n  "road": 0.1\n}\n'
    )

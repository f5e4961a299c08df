"""The card of a model, as text."""

import pytest

from atrous.report.card import Card, card_text
from atrous.report.tables import WIDTH


def test_a_bundle_that_was_certified() -> None:
    scores = {
        "data": "camvid",
        "split": "val",
        "images": 101,
        "protocol": "pooled",
        "miou": 0.777,
        "intervals": {"miou": [0.769, 0.782]},
        "iou": {"sky": 0.933, "pole": None},
        "torch_fp32": {"miou": 0.776},
    }
    card = Card(
        name="mine.onnx",
        kind="bundle",
        network="unet",
        precision="int8",
        classes=("sky", "pole"),
        data="camvid",
        scores=scores,
        path="mine.onnx",
        bytes=2_193_224,
    )
    assert card_text(card).splitlines() == [
        "mine.onnx: a bundle",
        "  network  unet, int8",
        "  classes  2, with their IoU: sky 93.3, pole",
        "  scores   mIoU 77.7 (76.9 to 78.2) on camvid val, 101 images; protocol pooled:",
        "           a predicted class without truth counts 0; torch in float32 77.6",
        "  data     camvid",
        "  file     mine.onnx, 2.2 MB",
        "  use      atrous segment PHOTO --model mine.onnx",
    ]


def test_what_is_not_fetched() -> None:
    scores = {"miou": 0.32, "protocol": "val"}
    card = Card(name="them/theirs", kind="published", url="https://x.org/a", scores=scores)
    assert card_text(card).splitlines() == [
        "them/theirs: published by others",
        "  scores   mIoU 32.0 (val), as its publisher states",
        "  from     https://x.org/a",
        "  file     not fetched yet",
        "  use      atrous segment PHOTO --model them/theirs",
    ]


@pytest.mark.parametrize(
    "scores",
    [
        {},
        {"miou": None, "images": 0},
        {"miou": "high"},
        {"miou": [0.5], "iou": [1], "intervals": 3},
        {"camvid val": {"miou": 0.7}},
    ],
)
def test_scores_that_say_nothing(scores: dict[str, object]) -> None:
    text = card_text(Card(name="x", kind="run", classes=("sky",), scores=scores))
    assert "  scores   none known\n" in text
    assert "  classes  1: sky\n" in text


@pytest.mark.parametrize(
    "scores",
    [
        {"miou": 0.5, "images": 3, "intervals": {"miou": [0.4]}, "torch_fp32": 1},
        {"miou": 0.5, "images": 3, "intervals": {"miou": "ab"}, "protocol": ["x"]},
        {"miou": 0.5, "images": 3, "interval": [None, None], "iou": {"sky": "much"}},
    ],
)
def test_scores_of_other_shapes_are_left_out(scores: dict[str, object]) -> None:
    text = card_text(Card(name="x", kind="bundle", classes=("sky",), scores=scores))
    assert "mIoU 50.0 on" in text and " to " not in text.partition("use")[0]


def test_long_texts_wrap_and_strange_ones_stay_on_their_line() -> None:
    classes = tuple(f"class {k}" for k in range(150))
    card = Card(name="x", kind="bundle", classes=classes, licence="free\n\x1b[2Jand long " * 20)
    text = card_text(card)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text and "class 149" in text

"""Colours and legends, on label maps drawn by hand."""

import math

import numpy as np
import pytest
from color_bundle import COLORS, TAXONOMY
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atrous import kernels
from atrous.draw import class_counts, colorize, fractions, legend, legend_rows, overlay
from atrous.taxonomy import Taxonomy, distinct_colors

LABELS = np.array([[0, 0, 0, 1], [2, 2, 255, 255]], np.uint8)


def test_colorize_gives_each_id_its_color() -> None:
    colored = colorize(LABELS, TAXONOMY)
    assert colored.shape == (2, 4, 3)
    assert tuple(colored[0, 3]) == COLORS[1]
    assert tuple(colored[1, 3]) == (0, 0, 0)


def test_shares_are_of_pixels_with_a_class_largest_first() -> None:
    shares = fractions(class_counts(LABELS, TAXONOMY.num_classes))
    assert legend_rows(shares, TAXONOMY) == [
        ("red", 3 / 6, COLORS[0]),
        ("blue", 2 / 6, COLORS[2]),
        ("green", 1 / 6, COLORS[1]),
    ]


def test_overlay_mixes_and_leaves_ignored_pixels_alone() -> None:
    image = np.full((2, 4, 3), 100, np.uint8)
    mixed = np.asarray(overlay(image, LABELS, TAXONOMY, opacity=0.5))[:2, :4]
    assert mixed[0, 0].tolist() == pytest.approx([177.5, 50, 50], abs=1)
    assert mixed[1, 3].tolist() == [100, 100, 100]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (64, 64), (200, 2000), (3000, 4000)])
def test_legend_is_legible_at_any_size(height: int, width: int) -> None:
    labels = np.zeros((height, width), np.uint8)
    canvas = overlay(np.zeros((height, width, 3), np.uint8), labels, TAXONOMY)
    legend = np.asarray(canvas.crop((width, 0, canvas.width, canvas.height)))
    ink = (legend < 100).all(axis=2)  # (h, w) text; the swatch is red
    rows = np.flatnonzero(ink.any(axis=1))
    assert 8 <= np.ptp(rows) + 1 <= max(40, height / 20)


def test_legend_of_many_classes_sums_up_the_small_ones() -> None:
    names = tuple(f"class {i}" for i in range(100))
    many = Taxonomy(name="many", classes=names, colors=distinct_colors(100))
    labels = np.arange(100, dtype=np.uint8).repeat(100).reshape(100, 100)
    canvas = overlay(np.zeros((100, 100, 3), np.uint8), labels, many)
    assert canvas.height < 300


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_overlay_colors_are_those_of_colorize(dtype: type) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (9, 7)).astype(dtype)
    mixed = overlay(np.zeros((9, 7, 3), np.uint8), labels, TAXONOMY, opacity=1)
    assert np.array_equal(np.asarray(mixed)[:9, :7], colorize(labels, TAXONOMY))


@given(
    height=st.integers(1, 5),
    width=st.integers(1, 120),
    run=st.integers(1, 60),
    opacity=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_kernel_mixes_as_the_reference(
    height: int, width: int, run: int, opacity: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    ids = rng.choice([0, 1, 2, 7, 255], height * width // run + 1).astype(np.uint8)
    labels = ids.repeat(run)[: height * width].reshape(height, width)
    pictures = [np.asarray(overlay(image, labels, TAXONOMY, opacity))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "kernel", lambda name: None)
        pictures.append(np.asarray(overlay(image, labels, TAXONOMY, opacity)))
    assert np.array_equal(*pictures)
    exact = image * (1 - opacity) + colorize(labels, TAXONOMY) * opacity
    exact[labels == 255] = image[labels == 255]
    assert np.abs(pictures[0][:height, :width] - exact).max() <= 1.5


def test_a_legend_can_go_without_numbers() -> None:
    """As that of a video, where the numbers change from frame to frame."""
    rows = [(name, math.nan, color) for name, color in zip("abc", COLORS, strict=False)]
    with_numbers = [(name, 0.5, color) for name, _, color in rows]
    assert legend(rows, 100).width < legend(with_numbers, 100).width
    assert legend(rows, 100).height == legend(with_numbers, 100).height


def test_a_legend_says_shares_as_the_terminal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    blank = Image.new("L", (8, 20))
    monkeypatch.setattr("atrous.draw._text", lambda text, *_: drawn.append(text) or blank)
    shares = [0.5541, 0.0007, 0.0003]
    legend([(name, share, COLORS[0]) for name, share in zip("abc", shares, strict=True)], 100)
    assert drawn == ["a", "b", "c", "55", ".4 %", "0", ".1 %", "< 0", ".1 %"]


def test_overlay_without_any_class() -> None:
    ignored = np.full((4, 4), 255, np.uint8)
    assert isinstance(overlay(np.zeros((4, 4, 3), np.uint8), ignored, TAXONOMY), Image.Image)

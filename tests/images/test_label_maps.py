"""Label maps keep the integers of their files, whatever wrote them."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from png_bytes import grey_png

from atrous.errors import InputError
from atrous.images.label_maps import has_palette, read_colors, read_label, write_label
from atrous.images.photos import image_size, read_image
from atrous.taxonomy import Taxonomy

TAXONOMY = Taxonomy(name="two", classes=("left", "right"), colors=((10, 20, 30), (40, 50, 60)))


def test_label_keeps_its_indices(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [255, 1]], np.uint8)
    path = tmp_path / "labels.png"
    write_label(path, labels, TAXONOMY)
    assert np.array_equal(read_label(path), labels)
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.getpalette()[:6] == [10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_labels_of_few_bits_are_not_stretched(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "labels.png"
    last = 2**bits - 1
    path.write_bytes(grey_png(1, 2, bits, bytes([0, 1 << (8 - bits), 0, last << (8 - bits)])))
    assert read_label(path).tolist() == [[1], [last]]


def tiff(path: Path, bits: int, white: int, rows: bytes) -> None:
    """A grey TIFF of two pixels byte by byte; `white` is 0 where 0 is white, else 1."""
    tags = {256: 2, 257: 1, 258: bits, 259: 1, 262: white, 273: 8, 277: 1, 278: 1, 279: len(rows)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    path.write_bytes(
        b"II*\0"
        + struct.pack("<I", 12)
        + rows.ljust(4)
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


@pytest.mark.parametrize(("bits", "rows"), [(2, b"\x60"), (4, b"\x12"), (8, b"\1\2")])
def test_grey_tiffs_keep_their_ids_or_are_refused(tmp_path: Path, bits: int, rows: bytes) -> None:
    tiff(tmp_path / "mask.tif", bits, 1, rows)
    assert read_label(tmp_path / "mask.tif").tolist() == [[1, 2]]
    tiff(tmp_path / "mask.tif", bits, 0, rows)
    with pytest.raises(InputError, match=r"mask\.tif: its 0 is white"):
        read_label(tmp_path / "mask.tif")


@pytest.mark.parametrize("largest", [3, 20, 255, 1000, 65535])
def test_pgms_keep_their_ids_whatever_their_largest_value(tmp_path: Path, largest: int) -> None:
    ids = np.arange(largest + 1, dtype=">u1" if largest < 256 else ">u2")[None]
    head = f"{largest + 1} 1 {largest}\n"
    (tmp_path / "raw.pgm").write_bytes(f"P5 {head}".encode() + ids.tobytes())
    (tmp_path / "plain.pgm").write_text(f"P2 {head}" + " ".join(map(str, ids[0].tolist())))
    assert np.array_equal(read_label(tmp_path / "raw.pgm"), ids)
    assert np.array_equal(read_label(tmp_path / "plain.pgm"), ids)


def test_pbms_count_from_white(tmp_path: Path) -> None:
    (tmp_path / "mask.pbm").write_bytes(b"P4 2 1\n\x40")
    with pytest.raises(InputError, match="its 0 is white"):
        read_label(tmp_path / "mask.pbm")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_turned_grey_tiffs(tmp_path: Path, orientation: int, compression: str | None) -> None:
    ids = np.arange(15, dtype=np.uint8).reshape(3, 5)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(ids)
    picture.save(tmp_path / "mask.tif", exif=exif, compression=compression)
    picture.getexif()[0x0112] = orientation
    upright = np.array(ImageOps.exif_transpose(picture))
    assert np.array_equal(read_label(tmp_path / "mask.tif"), upright)
    assert np.array_equal(read_image(tmp_path / "mask.tif")[:, :, 0], upright)
    assert image_size(tmp_path / "mask.tif") == upright.shape


def test_labels_of_16_bits(tmp_path: Path) -> None:
    ids = np.array([[0, 40000]], np.uint16)
    Image.fromarray(ids).save(tmp_path / "labels.png")
    assert np.array_equal(read_label(tmp_path / "labels.png"), ids)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colors_are_not_labels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "labels.png"
    Image.new(mode, (2, 2)).save(path)
    with pytest.raises(InputError, match=f"{mode} colours where class indices were expected"):
        read_label(path)


def test_colors_are_24_bit_codes_in_every_mode(tmp_path: Path) -> None:
    colors = np.array([[[1, 2, 3], [255, 0, 0], [0, 255, 255]]], np.uint8)
    codes = [[1 + 2 * 256 + 3 * 65536, 255, 255 * 256 + 255 * 65536]]
    rgb = Image.fromarray(colors)
    rgba = rgb.copy()
    rgba.putalpha(0)
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    transparent = palette.copy()
    transparent.info["transparency"] = 0
    for picture in (rgb, rgba, palette, transparent):
        picture.save(tmp_path / "mask.png")
        assert read_colors(tmp_path / "mask.png").tolist() == codes
        assert read_colors(tmp_path / "mask.png").dtype == np.int32
    for mode, value, code in (("L", 7, 0x070707), ("1", 1, 0xFFFFFF), ("LA", (7, 0), 0x070707)):
        Image.new(mode, (1, 1), value).save(tmp_path / "mask.png")
        assert read_colors(tmp_path / "mask.png").tolist() == [[code]]
    Image.fromarray(np.array([[500]], np.uint16)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="I;16 where colours were expected"):
        read_colors(tmp_path / "mask.png")


def test_palettes_are_told_from_grey(tmp_path: Path) -> None:
    write_label(tmp_path / "labels.png", np.zeros((2, 2), np.uint8), TAXONOMY)
    assert has_palette(tmp_path / "labels.png")
    Image.new("L", (2, 2)).save(tmp_path / "labels.png")
    assert not has_palette(tmp_path / "labels.png")

"""Files from strangers: every one becomes an array, or one clear line."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pillow_heif import from_pillow

from atrous.errors import InputError
from atrous.images import photos as images
from atrous.images.label_maps import has_palette, read_colors, read_label, write_label
from atrous.images.photos import (
    IMAGE_SUFFIXES,
    has_frames,
    image_size,
    photo_array,
    read_image,
    write_image,
)
from atrous.taxonomy import Taxonomy

TAXONOMY = Taxonomy(name="two", classes=("left", "right"), colors=((10, 20, 30), (40, 50, 60)))


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey_png(width: int, height: int, bits: int, rows: bytes) -> bytes:
    """A grey PNG byte by byte; `rows` begins each row with its filter, 0."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def message_of(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_image(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".ppm"])
def test_lossless_formats_keep_every_value(tmp_path: Path, photo: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    write_image(path, photo)
    assert np.array_equal(read_image(path), photo)
    assert read_image(path).flags.writeable


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".gif", ".avif"])
def test_lossy_formats_are_read(tmp_path: Path, photo: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    write_image(path, photo)
    assert read_image(path).shape == photo.shape


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".jp2", "JPEG2000"),
        (".J2K", "JPEG2000"),
        (".tga", "TGA"),
        (".TGA", "TGA"),
        (".ico", "ICO"),
        (".qoi", "QOI"),
        (".pnm", "PPM"),
        (".apng", "PNG"),
    ],
)
def test_formats_of_other_tools_keep_every_value(
    tmp_path: Path, photo: np.ndarray, suffix: str, kind: str
) -> None:
    photo = photo.repeat(4, 0).repeat(4, 1)  # icons are 16 pixels high, at least
    path = tmp_path / f"photo{suffix}"
    options = {"sizes": [(28, 20)]} if kind == "ICO" else {}
    Image.fromarray(photo).save(path, format=kind, **options)
    assert path.suffix.lower() in IMAGE_SUFFIXES
    assert np.array_equal(read_image(path), photo)
    assert image_size(path) == (20, 28)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".mpo"])
def test_jpegs_by_other_names(tmp_path: Path, photo: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    image, second = Image.fromarray(photo), Image.new("RGB", (7, 5))
    more = {"format": "MPO", "append_images": [second]} if suffix == ".mpo" else {"format": "JPEG"}
    image.save(path, quality=100, subsampling=0, **more)
    assert abs(read_image(path).astype(int) - photo).max() < 8
    assert not has_frames(path)  # the second of an MPO is a preview, or for the other eye


def test_any_bytes_are_no_tga_but_in_a_tga(tmp_path: Path, photo: np.ndarray) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(photo).save(path, format="TGA")
    assert "not an image" in message_of(path)


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".hif", ".jpg"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_heic_is_read_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    photo = np.zeros((64, 96, 3), np.uint8)
    photo[:16, :16] = 255  # at the top left
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    image = Image.fromarray(photo)
    stored = image if turn is None else image.transpose(turn)
    path = tmp_path / f"photo{suffix}"
    from_pillow(stored).save(path, quality=100, exif=exif.tobytes())
    assert abs(read_image(path).astype(int) - photo).max() < 40
    assert image_size(path) == (64, 96)


def test_a_broken_heic_and_a_missing_extra_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.heic"
    from_pillow(Image.new("RGB", (64, 64), "red")).save(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:64], whole[:24] + b"\0" * 200):
        path.write_bytes(damaged)
        assert "damaged or cut short" in message_of(path)
    path.write_bytes(whole)
    monkeypatch.setattr(images, "can_read_heif", lambda: False)
    assert message_of(path).endswith(
        ': a HEIC photo; install what reads it: pip install "atrous[heif]"'
    )


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_the_first_of_several_pictures_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    red, blue = (Image.new("RGB", (7, 5), color) for color in ("red", "blue"))
    red.save(path)
    assert not has_frames(path)
    red.save(path, save_all=True, append_images=[blue])
    assert has_frames(path)
    assert abs(read_image(path).astype(int) - (255, 0, 0)).max() < 3
    path.write_bytes(b"nothing")
    assert not has_frames(path)


def test_what_pillow_logs_stays_off_standard_error(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    Image.new("RGB", (7, 5)).save(path)
    content = path.read_bytes()
    entry = content.index(struct.pack("<HHI", 277, 3, 1))  # samples per pixel
    path.write_bytes(content[: entry + 8] + struct.pack("<I", 7) + content[entry + 12 :])
    code = "import sys; from atrous.images.photos import read_image; read_image(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "InputError" in done.stderr
    assert "samples per pixel" not in done.stderr.lower()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_photo_upright(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # top left
    undo = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(np.ascontiguousarray(undo[orientation])).save(path, exif=exif)
    found = read_image(path)
    assert found.shape == upright.shape
    assert image_size(path) == image_size(path, path.read_bytes()) == upright.shape[:2]
    assert np.abs(found.astype(int) - upright).max() < 40


def test_every_kind_of_pixel_becomes_srgb() -> None:
    grey = Image.new("L", (2, 1), 77)
    assert (photo_array(grey) == 77).all()
    deep = Image.fromarray(np.array([[0, 257 * 200]], np.uint16))
    assert photo_array(deep).tolist() == [[[0, 0, 0], [200, 200, 200]]]
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 51))  # a fifth of black over white
    assert photo_array(half).tolist() == [[[204, 204, 204]]]
    ink = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    assert photo_array(ink).tolist() == [[[255, 0, 0]]]
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert photo_array(palette).tolist() == [[[9, 8, 7]]]
    palette.info["transparency"] = 1
    assert photo_array(palette).tolist() == [[[255, 255, 255]]]
    assert photo_array(Image.new("1", (1, 1), 1)).tolist() == [[[255, 255, 255]]]


def test_pixels_without_srgb_form_are_refused() -> None:
    with pytest.raises(InputError, match="photo: pixels of kind F"):
        photo_array(Image.new("F", (1, 1)), "photo")


def test_bomb_is_refused_from_its_header_in_silence(tmp_path: Path) -> None:
    for side in (30000, 9900, 10001):  # Pillow refuses the first, and warns of the others
        path = tmp_path / f"bomb{side}.png"
        path.write_bytes(grey_png(side, side, 8, b""))  # no pixels follow: decoding would fail
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            text = message_of(path)
        assert ("over 100 million pixels" in text) == (side > 10000)


def test_truncated_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    write_image(path, np.zeros((64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-40])
    assert "damaged or cut short" in message_of(path)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("hello")
    assert "not an image" in message_of(text)
    empty = tmp_path / "empty.png"
    empty.touch()
    assert "the file is empty" in message_of(empty)
    assert "is a folder" in message_of(tmp_path)
    postscript = tmp_path / "page.png"  # Pillow would start Ghostscript for it
    postscript.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    assert "not an image" in message_of(postscript)


def test_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "street.jpg").touch()
    assert message_of(tmp_path / "stret.jpg").endswith(f"Did you mean {tmp_path / 'street.jpg'}?")
    assert "Check the name" in message_of(tmp_path / "zzz" / "stret.jpg")


@given(st.binary(max_size=300), st.integers(0, 400), st.sampled_from(["PNG", "JPEG", "TIFF"]))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_are_read_or_refused(
    tmp_path: Path, noise: bytes, place: int, image_format: str
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(buffer, format=image_format)
    whole = buffer.getvalue()
    path = tmp_path / "stranger"
    path.write_bytes(whole[:place] + noise + whole[place + len(noise) :])
    for read in (read_image, read_label, read_colors, image_size):
        try:
            assert np.size(read(path)) > 0
        except InputError as error:
            assert "\n" not in str(error)


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


def test_content_without_a_file(tmp_path: Path, photo: np.ndarray) -> None:
    """As in a shard: the path only names it."""
    write_image(tmp_path / "a.png", photo)
    content = (tmp_path / "a.png").read_bytes()
    name = "train-000000.tar/a.jpg"
    assert np.array_equal(read_image(name, content), photo)
    assert image_size(name, content) == photo.shape[:2]
    assert read_label(name, grey_png(1, 1, 2, bytes([0, 2 << 6]))).tolist() == [[2]]
    for read in (read_image, read_label, read_colors, image_size):
        for broken in (b"", b"text", content[:40]):
            with pytest.raises(InputError, match=f"^{name}: "):
                read(name, broken)


def test_size_is_read_from_the_header_alone(tmp_path: Path, photo: np.ndarray) -> None:
    write_image(tmp_path / "a.png", photo)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: content.index(b"IDAT") + 8])
    assert image_size(tmp_path / "a.png") == (5, 7)
    with pytest.raises(InputError, match="cut short"):
        read_image(tmp_path / "a.png")

"""Files from strangers: every one becomes an array, or one clear line."""

import io
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pillow_heif import from_pillow
from png_bytes import grey_png

from atrous.errors import InputError
from atrous.images import photos as images
from atrous.images.label_maps import read_colors, read_label
from atrous.images.photos import (
    IMAGE_SUFFIXES,
    has_frames,
    image_size,
    photo_array,
    read_image,
    write_image,
)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


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
    assert "no file, but a folder" in message_of(tmp_path)
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

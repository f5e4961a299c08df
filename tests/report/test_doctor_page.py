import base64
import io
import re
from dataclasses import replace
from pathlib import Path

from doctor_folders import PALETTE, mask, photo, resized, save, write_images, write_index
from html_page import Page
from PIL import Image

from atrous.doctor import examine
from atrous.doctor.findings import finding
from atrous.report.doctor_page import render, write_page


def test_a_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    write_index(tmp_path / "data")
    save(tmp_path / "data/masks/003.png", mask(3)[:-4])
    (tmp_path / "data/images/005.png").write_bytes(b"no image")
    write_page(tmp_path / "page.html", examine(tmp_path / "data"))
    text = (tmp_path / "page.html").read_text("utf-8")
    page = Page(text)
    assert page.sources and all(s.startswith("data:image/jpeg;base64,") for s in page.sources)
    assert "script" not in page.tags and "link" not in page.tags
    assert not re.search(r"url\(|@import|https?://", text)
    # two overlays on each of 8 good images' sheets, image and mask of one pair, a mask of the other
    assert page.tags.count("img") == 8 + 2 + 1
    for part in ("1 mask not of the image's size", "1 image cannot be read", "class 4", "[labels]"):
        assert part in page.text


def test_names_of_strangers_are_escaped(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    write_images(tmp_path, 3)
    save(tmp_path / f"images/{name}.png", photo(9))
    save(tmp_path / f"masks/{name}.png", mask(9)[:-4])
    for number in range(3):
        save(tmp_path / f"masks/{number:03}.png", PALETTE[mask(number)])
    (tmp_path / "class_dict.csv").write_text(
        'name,r,g,b\n<script>alert(1)</script>,0,0,0\n"\'>""<b>",128,0,0\n'
    )
    page = Page(render(examine(tmp_path)))
    assert not {"script", "b"} & {*page.tags}
    assert all(source.startswith("data:") for source in page.sources)
    assert "<script>alert(1)</script>" in page.text and name in page.text


def test_blurred_edges_are_shown_enlarged(tmp_path: Path) -> None:
    write_index(tmp_path, 4)
    save(tmp_path / "masks/001.png", resized(mask(1)))
    page = Page(render(examine(tmp_path)))
    sizes = [Image.open(io.BytesIO(base64.b64decode(s.split(",")[1]))).size for s in page.sources]
    assert sizes.count((192, 144)) == 1 and len(sizes) == 2 + 4


def test_a_described_folder_has_a_page_too(tmp_path: Path) -> None:
    write_index(tmp_path)
    examine(tmp_path).write()
    page = Page(render(examine(tmp_path)))
    assert page.tags.count("img") == 10


def test_a_page_says_what_the_terminal_says(tmp_path: Path) -> None:
    """Encoding in words, one decimal, and no list to open where there is none."""
    write_index(tmp_path)
    diagnosis = examine(tmp_path)
    told = finding("known-set", count=1, line="VOC")
    text = render(replace(diagnosis, findings=[told]))
    assert "<dd>a pixel&#39;s value is the id of its class</dd>" in text
    assert "laid out as VOC" in text and "in all" not in text
    shares = re.findall(r"<span>(.*%)</span>", text)
    assert shares and all(re.fullmatch(r"(&lt; 0|\d+)\.\d %", share) for share in shares)

"""Formats of annotation tools that are not read: each is named, with what to export instead."""

import json
from pathlib import Path
from typing import Any

import pytest
from doctor_folders import photo, save, write_index

from atrous.doctor import examine
from atrous.errors import InputError

REGION = {"shape_attributes": {"name": "polygon"}, "region_attributes": {"name": "car"}}
VIA = {"0.jpg12": {"filename": "0.jpg", "size": 12, "regions": [REGION]}}
VOC = "<annotation><object><name>car</name><bndbox><xmin>1</xmin></bndbox></object></annotation>"
CVAT = '<?xml version="1.0"?>\n<annotations>\n<image id="0"><polygon/></image></annotations>'
FORMATS: list[tuple[str, Any, str]] = [
    ("via_region_data.json", VIA, "VGG VIA JSON"),
    ("via_project.json", {"_via_settings": {}, "_via_img_metadata": VIA}, "VGG VIA project"),
    ("export.json", [{"id": 1, "data": {"image": "x"}, "annotations": []}], "Label Studio JSON"),
    ("min.json", [{"annotation_id": 3, "annotator": 1, "image": "x"}], "Label Studio JSON-MIN"),
    ("export.ndjson", {"data_row": {"id": "x"}, "projects": {}}, "Labelbox"),
    ("hasty.json", {"project_name": "x", "images": [], "label_classes": []}, "Hasty JSON"),
    ("0.jpg.json", {"metadata": {"name": "0.jpg"}, "instances": []}, "SuperAnnotate JSON"),
    ("0.json", {"version": "2.0", "item": {"name": "0.jpg"}, "annotations": []}, "V7 Darwin"),
    ("default.json", {"info": {}, "categories": {"label": {}}, "items": []}, "Datumaro JSON"),
    ("createml.json", [{"image": "0.jpg", "annotations": []}], "CreateML boxes"),
    ("bdd100k.json", [{"name": "0.jpg", "labels": [{"poly2d": []}]}], "BDD100K"),
    ("0_polygons.json", {"imgHeight": 4, "imgWidth": 4, "objects": []}, "Cityscapes polygons"),
    ("release.json", {"name": "v1", "created_at": "x", "dataset": {}}, "Segments.ai"),
    ("annotations.xml", CVAT, "CVAT XML"),
    ("0.xml", VOC, "Pascal VOC boxes"),
    ("0.XML", "<annotation><object><polygon><pt>", "LabelMe XML"),
]


@pytest.mark.parametrize(("file", "content", "named"), FORMATS, ids=[f[2] for f in FORMATS])
def test_a_format_that_is_not_read_is_named(
    tmp_path: Path, file: str, content: Any, named: str
) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.jpg", photo(number))
    (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=f"{file}: .*{named}.*not read; export ") as error:
        examine(tmp_path)
    assert "\n" not in str(error.value)


def test_masks_count_more_than_formats_beside_them(tmp_path: Path) -> None:
    write_index(tmp_path, 4)
    for file, content, _ in FORMATS:
        (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    assert len(examine(tmp_path).classes) == 5


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "[1]", '{"a": []}', "[[]]", "null"])
def test_json_of_no_format_leaves_the_first_message(tmp_path: Path, content: str) -> None:
    save(tmp_path / "0.jpg", photo(0))
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match="1 images, but no mask"):
        examine(tmp_path)

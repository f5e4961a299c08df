"""Every built-in set: its facts, and a miniature of it in the layout that its publisher gives."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.data.dataset import Dataset, builtin_names
from atrous.data.schema import builtin
from atrous.errors import InputError

SETS = {  # classes, things
    "ade20k": (150, 100),
    "ade20k151": (151, 100),
    "camvid": (11, 3),
    "cityscapes": (19, 8),
    "cityscapes-panoptic": (19, 8),
    "coco-panoptic": (133, 80),
    "cocostuff": (171, 80),
    "cocostuff-stuff": (92, 0),
    "cocostuff-stuff-json": (92, 0),
    "cocostuff10k": (171, 80),
    "cocostuff182": (182, 91),
    "voc2012": (21, 20),
    "voc2012-aug": (21, 20),
}

TRAIN_IDS = {  # dataset id -> train id, as the publishers and field practice have it
    "ade20k": {0: 255, 1: 0, 13: 12, 150: 149, 255: 255},
    "ade20k151": {0: 255, 1: 1, 13: 13, 150: 150, 255: 255},
    "camvid": {0: 0, 10: 10, 11: 255},
    "cityscapes": {0: 255, 7: 0, 8: 1, 11: 2, 17: 5, 19: 6, 26: 13, 29: 255, 31: 16, 33: 18},
    "cityscapes-panoptic": {4: 255, 7: 0, 26: 13, 26_000: 13, 26_017: 13, 29_000: 255, 33_001: 18},
    "coco-panoptic": {0: 255, 1: 0, 90: 79, 92: 80, 199: 131, 200: 132},
    "cocostuff": {0: 0, 10: 10, 12: 11, 89: 79, 91: 80, 181: 170, 255: 255},
    "cocostuff-stuff": {0: 255, 92: 0, 182: 90, 183: 91},
    "cocostuff-stuff-json": {0: 255, 92: 0, 182: 90, 183: 91},
    "cocostuff10k": {0: 255, 1: 0, 11: 10, 13: 11, 90: 79, 92: 80, 182: 170},
    "cocostuff182": {0: 0, 11: 11, 91: 91, 181: 181, 255: 255},
    "voc2012": {0: 0, 15: 15, 20: 20, 255: 255},
    "voc2012-aug": {0: 0, 15: 15, 20: 20, 255: 255},
}

NAMES = {  # train id -> name
    "ade20k": {0: "wall", 12: "person", 149: "flag"},
    "ade20k151": {0: "unlabelled", 1: "wall", 13: "person", 150: "flag"},
    "camvid": {0: "sky", 10: "bicyclist"},
    "cityscapes": {0: "road", 13: "car", 18: "bicycle"},
    "cityscapes-panoptic": {0: "road", 13: "car", 18: "bicycle"},
    "coco-panoptic": {0: "person", 79: "toothbrush", 80: "banner", 132: "rug-merged"},
    "cocostuff": {0: "person", 11: "stop sign", 79: "toothbrush", 80: "banner", 170: "wood"},
    "cocostuff-stuff": {0: "banner", 90: "wood", 91: "other"},
    "cocostuff-stuff-json": {0: "banner", 90: "wood", 91: "other"},
    "cocostuff10k": {0: "person", 11: "stop sign", 79: "toothbrush", 80: "banner", 170: "wood"},
    "cocostuff182": {11: "street sign", 90: "hair brush", 91: "banner", 181: "wood"},
    "voc2012": {0: "background", 15: "person", 20: "tvmonitor"},
    "voc2012-aug": {0: "background", 15: "person", 20: "tvmonitor"},
}

LAYOUTS = {  # of an image and of its mask; of the list, and how a line of it looks
    "ade20k": {
        "train": (
            "ADEChallengeData2016/images/training/ADE_train_00000001.jpg",
            "ADEChallengeData2016/annotations/training/ADE_train_00000001.png",
        ),
        "val": (
            "ADEChallengeData2016/images/validation/ADE_val_00000001.jpg",
            "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png",
        ),
    },
    "camvid": {
        "train": (
            "train/0001TP_006690.png",
            "trainannot/0001TP_006690.png",
            "train.txt",
            "/SegNet/CamVid/train/0001TP_006690.png /SegNet/CamVid/trainannot/0001TP_006690.png",
        ),
        "val": (
            "val/0016E5_07959.png",
            "valannot/0016E5_07959.png",
            "val.txt",
            "/SegNet/CamVid/val/0016E5_07959.png /SegNet/CamVid/valannot/0016E5_07959.png",
        ),
        "test": (
            "test/0001TP_008550.png",
            "testannot/0001TP_008550.png",
            "test.txt",
            "/SegNet/CamVid/test/0001TP_008550.png /SegNet/CamVid/testannot/0001TP_008550.png",
        ),
    },
    "cityscapes": {
        "train": (
            "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
            "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
        ),
        "val": (
            "leftImg8bit/val/munster/munster_000000_000019_leftImg8bit.png",
            "gtFine/val/munster/munster_000000_000019_gtFine_labelIds.png",
        ),
    },
    "cityscapes-panoptic": {
        "train": (
            "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
            "gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png",
        ),
        "val": (
            "leftImg8bit/val/munster/munster_000000_000019_leftImg8bit.png",
            "gtFine/val/munster/munster_000000_000019_gtFine_instanceIds.png",
        ),
    },
    "coco-panoptic": {
        split: (f"{split}2017/000000000139.jpg", f"annotations/panoptic_{split}2017.json")
        for split in ("train", "val")
    },
    "cocostuff": {
        split: (f"{split}2017/000000000139.jpg", f"stuffthingmaps/{split}2017/000000000139.png")
        for split in ("train", "val")
    },
    "cocostuff-stuff": {
        split: (
            f"{split}2017/000000000139.jpg",
            f"annotations/stuff_{split}2017_pixelmaps/000000000139.png",
        )
        for split in ("train", "val")
    },
    "cocostuff-stuff-json": {
        split: (f"{split}2017/000000000139.jpg", f"annotations/stuff_{split}2017.json")
        for split in ("train", "val")
    },
    "cocostuff10k": {
        split: (
            "images/COCO_train2014_000000000077.jpg",
            "annotations/COCO_train2014_000000000077.mat",
            f"imageLists/{published}.txt",
            "COCO_train2014_000000000077",
        )
        for split, published in (("train", "train"), ("val", "test"))
    },
    "cocostuff182": {
        split: (f"{split}2017/000000000139.jpg", f"stuffthingmaps/{split}2017/000000000139.png")
        for split in ("train", "val")
    },
    "voc2012": {
        split: (
            "VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg",
            "VOCdevkit/VOC2012/SegmentationClass/2007_000032.png",
            f"VOCdevkit/VOC2012/ImageSets/Segmentation/{split}.txt",
            "2007_000032",
        )
        for split in ("train", "val", "trainval")
    },
    "voc2012-aug": {
        split: (
            "VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg",
            f"VOCdevkit/VOC2012/{masks}/2007_000032.png",
            f"VOCdevkit/VOC2012/ImageSets/Segmentation/{published}.txt",
            "2007_000032",
        )
        for split, masks, published in (
            ("train", "SegmentationClassAug", "train_aug"),
            ("trainaug", "SegmentationClassAug", "trainaug"),
            ("val", "SegmentationClass", "val"),
        )
    },
}
LAYOUTS["ade20k151"] = LAYOUTS["ade20k"]


def write_grey(path: Path, ids: np.ndarray) -> None:
    Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16)).save(path)


def write_palette(path: Path, ids: np.ndarray) -> None:
    image = Image.fromarray(ids.astype(np.uint8), "L")
    image.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    image.save(path)


def write_mat(path: Path, ids: np.ndarray) -> None:
    from scipy.io import savemat

    savemat(path, {"S": ids.astype(np.uint8), "names": ["unlabeled", "person"]})


def write_stuff_json(path: Path, ids: np.ndarray) -> None:
    """One annotation for each id but 0, as an uncompressed run-length mask."""
    size = [int(side) for side in ids.shape]
    annotations = []
    for dataset_id in np.unique(ids[ids > 0]):
        mask = (ids == dataset_id).ravel(order="F")
        ends = np.flatnonzero(np.diff(np.concatenate(([False], mask)).astype(int))).tolist()
        counts = np.diff([0, *ends, mask.size]).tolist()
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": 139,
                "category_id": int(dataset_id),
                "segmentation": {"size": size, "counts": counts},
                "area": int(mask.sum()),
                "bbox": [0, 0, size[1], size[0]],
                "iscrowd": 0,
            }
        )
    write_json(path, annotations, sorted(TRAIN_IDS["cocostuff-stuff-json"])[1:], size)


def write_panoptic(path: Path, ids: np.ndarray) -> None:
    """Segment ids that need two bytes, in colours; 0 stays void."""
    segment_ids = np.where(ids, 256 + 3 * ids, 0)
    colors = np.stack([segment_ids % 256, segment_ids // 256, ids * 0], axis=2).astype(np.uint8)
    folder = path.with_suffix("")
    folder.mkdir()
    Image.fromarray(colors).save(folder / "000000000139.png")
    segments = [
        {"id": 256 + 3 * i, "category_id": i, "area": int((ids == i).sum()), "iscrowd": 0}
        | {"bbox": [0, 0, ids.shape[1], ids.shape[0]]}
        for i in np.unique(ids[ids > 0]).tolist()
    ]
    annotation = {"image_id": 139, "file_name": "000000000139.png", "segments_info": segments}
    categories = sorted(TRAIN_IDS["coco-panoptic"])[1:]
    write_json(path, [annotation], categories, [int(side) for side in ids.shape])


def write_json(
    path: Path, annotations: list[dict[str, Any]], categories: Sequence[int], size: Sequence[int]
) -> None:
    image = {"id": 139, "file_name": "000000000139.jpg", "height": size[0], "width": size[1]}
    named = [{"id": i, "name": str(i), "supercategory": "x", "isthing": 1} for i in categories]
    document = {"images": [image], "annotations": annotations, "categories": named}
    path.write_text(json.dumps(document))


WRITERS: Mapping[str, Callable[[Path, np.ndarray], None]] = {
    "voc2012": write_palette,
    "cocostuff10k": write_mat,
    "cocostuff-stuff-json": write_stuff_json,
    "coco-panoptic": write_panoptic,
}


def write_miniature(name: str, root: Path, split: str, ids: np.ndarray) -> None:
    """One image of a set, of the size of `ids` (H, W), with these dataset ids as its mask."""
    image, mask, *listed = LAYOUTS[name][split]
    for file in (image, mask, *listed[:1]):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (ids.shape[1], ids.shape[0])).save(root / image)
    WRITERS.get(name, write_grey)(root / mask, ids)
    if listed:
        (root / listed[0]).write_text(listed[1] + "\n")


def test_all_sets_are_tested() -> None:
    assert builtin_names() == sorted(SETS) == sorted(LAYOUTS) == sorted(TRAIN_IDS) == sorted(NAMES)


@pytest.mark.parametrize("name", SETS)
def test_has_the_known_classes(name: str, tmp_path: Path) -> None:
    dataset = Dataset.open(name, root=tmp_path)
    taxonomy = dataset.taxonomy
    assert dataset.name == name and set(dataset.splits) == set(LAYOUTS[name])
    assert (taxonomy.num_classes, len(taxonomy.things)) == SETS[name]
    assert {i: taxonomy.classes[i] for i in NAMES[name]} == NAMES[name]
    assert not any(word in dataset.licence + dataset.source for word in ("not stated", "http"))
    assert all(name == name.strip() for name in taxonomy.classes)


@pytest.mark.parametrize("name", [name for name in SETS if not name.startswith("ade20k")])
def test_colours_differ(name: str, tmp_path: Path) -> None:  # ADE20K's own do not
    colors = Dataset.open(name, root=tmp_path).taxonomy.colors
    assert len(set(colors)) == len(colors)


@pytest.mark.parametrize(
    ("name", "split"), [(name, split) for name in SETS for split in LAYOUTS[name]]
)
def test_reads_the_published_layout(name: str, split: str, tmp_path: Path) -> None:
    ids = np.array([[*TRAIN_IDS[name]], [*reversed(TRAIN_IDS[name])]])
    write_miniature(name, tmp_path, split, ids)
    samples = Dataset.open(name, root=tmp_path).split(split)
    assert len(samples) == 1
    expected = [[TRAIN_IDS[name][i] for i in row] for row in ids.tolist()]
    assert samples[0].label.tolist() == samples.label(0).tolist() == expected
    assert samples[0].image.shape == (*ids.shape, 3)


@pytest.mark.parametrize(
    ("name", "unknown"),
    [("cocostuff", 11), ("cocostuff-stuff", 91), ("cocostuff10k", 12), ("cityscapes", 34)],
)
def test_refuses_ids_that_the_set_does_not_have(name: str, unknown: int, tmp_path: Path) -> None:
    write_miniature(name, tmp_path, "train", np.array([[unknown]]))
    with pytest.raises(InputError, match=f"{unknown}"):
        Dataset.open(name, root=tmp_path).split("train").label(0)


def test_refuses_a_voc_mask_that_was_made_grey(tmp_path: Path) -> None:
    write_miniature("voc2012", tmp_path, "val", np.array([[0, 15]]))
    write_grey(tmp_path / LAYOUTS["voc2012"]["val"][1], np.array([[0, 147]]))
    with pytest.raises(InputError, match="palette"):
        Dataset.open("voc2012", root=tmp_path).split("val").label(0)


def test_cityscapes_instances_become_segments(tmp_path: Path) -> None:
    ids = np.array([[7, 26, 26_000, 26_001, 29_000]])
    write_miniature("cityscapes-panoptic", tmp_path, "val", ids)
    panoptic = Dataset.open("cityscapes-panoptic", root=tmp_path).split("val").panoptic(0)
    by_pixel = {segment["id"]: segment for segment in panoptic.segments}
    road, crowd, first, second = (by_pixel[i] for i in panoptic.ids[0, :4].tolist())
    assert [s["category_id"] for s in (road, crowd, first, second)] == [0, 13, 13, 13]
    assert [s.get("iscrowd", 0) for s in (road, crowd, first, second)] == [0, 1, 0, 0]
    assert len(by_pixel) == 4 and panoptic.ids[0, 4] == 0


@pytest.mark.parametrize("name", ["cocostuff", "cocostuff182", "coco-panoptic"])
def test_the_class_tree_parts_things_from_stuff(name: str, tmp_path: Path) -> None:
    taxonomy = Dataset.open(name, root=tmp_path).taxonomy
    parts = [group.split("/") for group in taxonomy.groups]
    assert {path[1] for path in parts} == {"indoor", "outdoor"}
    assert all(len(path) == 3 for path in parts)
    assert {i for i, path in enumerate(parts) if path[0] == "things"} == taxonomy.things


def test_coco_panoptic_has_53_stuff_classes(tmp_path: Path) -> None:
    categories = Dataset.open("coco-panoptic", root=tmp_path).taxonomy.categories()
    assert sum(not category["isthing"] for category in categories) == 53


@pytest.mark.parametrize("name", SETS)
def test_says_where_it_can_be_had(name: str) -> None:
    description = builtin(name)
    for archive in description.archives:
        named = archive.only if isinstance(archive.only, dict) else ()
        assert {*archive.splits, *named} <= set(LAYOUTS[name])
    assert bool(description.archives) != bool(description.manual)
    if manual := description.manual:
        assert manual.page.startswith("https://") and "\n" not in manual.text

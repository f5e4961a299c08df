import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atrous.data.encodings.panoptic import (
    evaluate_panoptic_files,
    instance_ids_to_panoptic,
    read_annotations,
    read_panoptic,
    write_panoptic,
)
from atrous.errors import InputError
from atrous.metrics import Panoptic, PanopticQuality
from atrous.report.scores import panoptic_text

CATEGORIES = [
    {"id": 1, "name": "cat", "isthing": 1, "color": [9, 8, 7]},
    {"id": 200, "name": "sky", "isthing": 0},
]
BIG = 3 + 256 * 2 + 65536 * 1
IDS = np.array([[0, 5, 5, 5], [BIG, BIG, 5, 5]])
SEGMENTS = [
    {"id": BIG, "category_id": 200, "iscrowd": 0, "area": 2},
    {"id": 5, "category_id": 1, "iscrowd": 1, "area": 5},
]
DOCUMENT = {
    "categories": CATEGORIES,
    "annotations": [{"image_id": 7, "file_name": "a.png", "segments_info": SEGMENTS}],
}


def write_json(path, document):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def write_png(path, ids):
    """Independent of what is tested: the three bytes of each id as R, G, B."""
    path.parent.mkdir(exist_ok=True)
    colors = ids.astype("<u4").view(np.uint8).reshape(*ids.shape, 4)[:, :, :3]
    Image.fromarray(np.ascontiguousarray(colors)).save(path)
    return path


def test_annotations_are_read(tmp_path):
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][0]["segments_info"][0]["bbox"] = [0, 1, 2, 1]
    annotations = read_annotations(write_json(tmp_path / "a.json", document))
    assert annotations.categories == CATEGORIES
    entry = annotations.images["a"]
    assert (entry.image_id, entry.file_name) == (7, "a.png")
    assert entry.segments == SEGMENTS


def test_equal_names_in_two_folders_are_two_images(tmp_path):
    names = ("aachen/1.png", "bonn/1.png")
    annotations = [{**DOCUMENT["annotations"][0], "image_id": n, "file_name": n} for n in names]
    document = {**DOCUMENT, "annotations": annotations}
    images = read_annotations(write_json(tmp_path / "a.json", document)).images
    assert list(images) == ["aachen/1", "bonn/1"]


def test_a_png_is_read_as_24_bit_ids(tmp_path):
    panoptic = read_panoptic(write_png(tmp_path / "a.png", IDS), SEGMENTS)
    assert (panoptic.ids == IDS).all()
    assert panoptic.segments == SEGMENTS


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_what_is_written_is_read_back(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("panoptic")
    random = np.random.default_rng(seed)
    known = np.append(0, random.integers(1, 1 << 24, 5))
    entries = []
    for key in ("one", "two"):
        ids = known[random.integers(0, len(known), tuple(random.integers(1, 9, 2)))]
        segments = [
            {
                "id": i,
                "category_id": int(random.choice([1, 200])),
                "iscrowd": int(random.integers(2)),
                "area": int((ids == i).sum()),
            }
            for i in np.unique(ids[ids > 0]).tolist()
        ]
        entries.append((key, f"image {key}", Panoptic(ids, segments)))
    write_panoptic(folder / "png", folder / "all.json", iter(entries), CATEGORIES)
    annotations = read_annotations(folder / "all.json")
    assert annotations.categories == CATEGORIES
    for key, image_id, (ids, segments) in entries:
        entry = annotations.images[key]
        assert entry.image_id == image_id
        panoptic = read_panoptic(folder / "png" / entry.file_name, entry.segments)
        assert (panoptic.ids == ids).all()
        assert panoptic.segments == segments


def test_what_cannot_be_written_is_refused(tmp_path):
    def write(ids, segments):
        entries = [("a", 1, Panoptic(ids, segments))]
        write_panoptic(tmp_path / "png", tmp_path / "a.json", entries, CATEGORIES)

    with pytest.raises(InputError, match="a: a segment has the id 16777216; a PNG holds up to"):
        write(np.array([[1 << 24]]), [{"id": 1 << 24, "category_id": 1}])
    with pytest.raises(InputError, match="a: the map holds the id 3"):
        write(np.array([[3]]), [])
    with pytest.raises(InputError, match="a: segment 3 has the category_id 4"):
        write(np.array([[3]]), [{"id": 3, "category_id": 4}])
    assert not (tmp_path / "a.json").exists()


def test_instance_ids_of_cityscapes():
    ids = np.array([[0, 7, 26], [26001, 26001, 26002]], np.uint16)
    panoptic = instance_ids_to_panoptic(ids, 1000, {26})
    categories = {segment["id"]: segment["category_id"] for segment in panoptic.segments}
    crowds = {segment["id"] for segment in panoptic.segments if segment["iscrowd"]}
    assert np.vectorize(categories.get)(panoptic.ids).tolist() == [[0, 7, 26], [26, 26, 26]]
    assert crowds == {panoptic.ids[0, 2]}
    assert len(categories) == 5
    # Category 0 is a segment like any other, not void.
    quality = PanopticQuality([{"id": i, "name": str(i), "isthing": 0} for i in (0, 7, 26)])
    quality.update(panoptic, panoptic)
    assert quality.counts.tolist() == [[1, 1, 2], [0, 0, 0], [0, 0, 0]]


def test_instance_ids_that_are_none_are_refused():
    with pytest.raises(InputError, match="2 ids from -1 to 5; instance ids count from 0"):
        instance_ids_to_panoptic(np.array([[-1, 5]]), 1000, set())
    with pytest.raises(InputError, match="65537 ids from 0 to 65536"):
        instance_ids_to_panoptic(np.arange(65537)[None], 1000, set())
    assert instance_ids_to_panoptic(np.zeros((0, 4), np.uint8), 1000, set()).segments == []


def predict(tmp_path, truth, predictions):
    """Write truth and predictions, {image id: ids}, each of one cat; return the four paths."""
    paths = []
    for name, images in (("truth", truth), ("prediction", predictions)):
        annotations = [
            {
                "image_id": i,
                "file_name": f"{name}{i}.png",
                "segments_info": [{"id": k, "category_id": 1} for k in np.unique(ids[ids > 0])],
            }
            for i, ids in images.items()
        ]
        document = {"annotations": annotations}
        if name == "truth":  # predictions need not repeat the categories
            document["categories"] = CATEGORIES
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(document, default=int))
        for i, ids in images.items():
            write_png(tmp_path / name / f"{name}{i}.png", ids)
        paths.append(tmp_path / name)
    return paths


def test_files_are_scored_and_paired_by_image_id(tmp_path):
    one, other = np.array([[3, 3, 3, 4]]), np.array([[9, 9, 0, 0]])
    paths = predict(tmp_path, {1: one, 2: other}, {2: other, 8: one, 1: one + 1})
    calls = []
    quality = evaluate_panoptic_files(*paths, progress=lambda *count: calls.append(count))
    assert quality.counts.T.tolist() == [[3, 0, 0], [0, 0, 0]]
    assert quality.scores().pq == 1
    assert calls == [(1, 2), (2, 2)]


def test_an_image_without_prediction_is_refused(tmp_path):
    image = np.array([[1]])
    paths = predict(tmp_path, {1: image, 2: image}, {1: image})
    with pytest.raises(InputError, match=r"prediction\.json: no prediction for image 2"):
        evaluate_panoptic_files(*paths)


def test_sizes_and_categories_must_agree(tmp_path):
    paths = predict(tmp_path, {1: np.array([[1]])}, {1: np.array([[1, 1]])})
    with pytest.raises(
        InputError, match=r"prediction1\.png: the prediction is \(1, 2\), its label"
    ):
        evaluate_panoptic_files(*paths)
    write_json(paths[2], paths[2].read_text().replace('"category_id": 1', '"category_id": 5'))
    with pytest.raises(
        InputError, match=r"prediction\.json: prediction1\.png: segment 1 has the ca"
    ):
        evaluate_panoptic_files(*paths)


def test_ids_on_one_side_only_name_the_png(tmp_path):
    path = write_png(tmp_path / "a.png", IDS)
    with pytest.raises(InputError, match=r"a\.png: the map holds the id 5, which none"):
        read_panoptic(path, SEGMENTS[:1])
    with pytest.raises(InputError, match=r"a\.png: segment 6 has no pixels in the map"):
        read_panoptic(path, [*SEGMENTS, {"id": 6, "category_id": 1}])


def changed(**fields):
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][0].update(fields)
    return document


def changed_segment(**fields):
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][0]["segments_info"][0].update(fields)
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "expected object, got array"),
        ('{"annotations":' * 100_000, "annotations: expected array, got object"),
        ('{"annotations": [' + "9" * 5000 + "]}", "number out of range"),
        ("[]", "expected object, got array"),
        ({"annotations": {}}, "annotations: expected array, got object"),
        ({"annotations": []}, "there are no categories"),
        ({**DOCUMENT, "categories": "cat"}, "categories: expected array, got str"),
        ({**DOCUMENT, "categories": [{}]}, "category {}"),
        ({**DOCUMENT, "categories": CATEGORIES * 2}, "two categories have the id 1"),
        ({**DOCUMENT, "annotations": [5]}, r"annotations\[0\]: expected object, got int"),
        (changed(image_id=None), "image_id: expected int . str, got null"),
        (changed(image_id=[1]), "image_id: expected int . str, got array"),
        (changed(file_name=3), "file_name: expected str, got int"),
        (changed(file_name=""), "image 7 has the file_name ''"),
        (changed(file_name="/etc/a.png"), "image 7 has the file_name '/etc/a.png'"),
        (changed(file_name="../a.png"), "image 7 has the file_name '../a.png'"),
        (changed(file_name="a\n.png"), "image 7 has the file_name"),
        (changed(file_name="a\ud800.png"), "image 7 has the file_name"),
        (changed(segments_info="x"), "segments_info: expected array, got str"),
        (changed(segments_info=SEGMENTS * 2), "a.png: two segments have the id"),
        (changed_segment(id=-1), "a.png: a segment has the id -1"),
        (changed_segment(id=10**30), "a.png: a segment has the id 1000"),
        (changed_segment(id="5"), "a.png: a segment has the id '5'"),
        (changed_segment(category_id=3), "a.png: segment .* has the category_id 3"),
        (changed_segment(category_id={}), "a.png: segment .* has the category_id {}"),
        (changed_segment(iscrowd="yes"), "a.png: segment .* has iscrowd 'yes'"),
        (changed_segment(area=-2), "a.png: segment .* has the area -2"),
        (changed_segment(area=float("nan")), "a.png: segment .* has the area nan"),
        (changed_segment(area=None), "a.png: segment .* has the area None"),
        ({**DOCUMENT, "annotations": DOCUMENT["annotations"] * 2}, "have the image_id 7"),
        (
            {
                **DOCUMENT,
                "annotations": [*DOCUMENT["annotations"], *changed(image_id=8)["annotations"]],
            },
            "two annotations have the file_name 'a'",
        ),
    ],
)
def test_what_is_wrong_in_a_json_is_said_in_one_line(tmp_path, document, message):
    path = write_json(tmp_path / "a.json", document)
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_json_that_is_not_there_is_said_so(tmp_path):
    write_json(tmp_path / "panoptic.json", DOCUMENT)
    with pytest.raises(InputError, match=r"Did you mean .*panoptic\.json"):
        read_annotations(tmp_path / "panoptc.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@st.composite
def damaged(draw):
    """The document with one value, at any depth, exchanged for another or left out."""
    document = copy.deepcopy(DOCUMENT)
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], list | dict) or not place[key] or draw(st.booleans()):
            break
        place = place[key]
    if draw(st.booleans()):
        del place[key]
    else:
        place[key] = draw(JSON)
    return document


@pytest.mark.slow
@given(damaged() | JSON)
@settings(deadline=None, max_examples=200)
def test_any_other_document_is_read_or_refused_in_one_line(tmp_path_factory, document):
    path = write_json(tmp_path_factory.mktemp("json") / "a.json", document)
    try:
        annotations = read_annotations(path)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        panoptic_text(PanopticQuality(annotations.categories).scores(), 1).encode()


@pytest.mark.slow
@given(st.binary(max_size=200), st.integers(0, 400))
@settings(deadline=None, max_examples=100)
def test_damaged_pngs_and_jsons_are_refused_in_one_line(tmp_path_factory, noise, cut):
    folder = tmp_path_factory.mktemp("damaged")
    png, text = write_png(folder / "a.png", IDS), write_json(folder / "a.json", DOCUMENT)
    for path, read in ((png, lambda path: read_panoptic(path, SEGMENTS)), (text, read_annotations)):
        content = path.read_bytes()
        for broken in (noise, content[:cut], content[:cut] + noise + content[cut + len(noise) :]):
            path.write_bytes(broken)
            try:
                read(path)
            except InputError as error:
                assert len(str(error).splitlines()) == 1

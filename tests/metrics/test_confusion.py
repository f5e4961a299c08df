import zipfile
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from atrous.errors import InputError
from atrous.metrics import Confusion
from atrous.metrics.archive import write_archive
from atrous.metrics.confusion import tree_scores

IGNORE = 255


def count_by_hand(prediction, label, num_classes, ignore_index=IGNORE):
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for true, predicted in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if true != ignore_index:
            matrix[true][predicted] += 1
    return matrix


def counted(prediction, label, num_classes, ignore_index=IGNORE):
    confusion = Confusion(num_classes, ignore_index)
    confusion.update(prediction, label)
    return confusion


@st.composite
def pairs(draw):
    num_classes = draw(st.integers(1, 6))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    shape = draw(st.sampled_from([(0,), (1,), (7,), (5, 8), (2, 3, 4)]))
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.int16, np.int64]))
    label = random.integers(0, num_classes, shape).astype(dtype)
    label[random.random(shape) < 0.3] = IGNORE
    return num_classes, random.integers(0, num_classes, shape).astype(dtype), label


@given(pairs())
@settings(deadline=None)
def test_counts_equal_a_loop_by_hand(case):
    num_classes, prediction, label = case
    matrix = counted(prediction, label, num_classes).matrix
    assert matrix.dtype == np.int64
    assert matrix.tolist() == count_by_hand(prediction, label, num_classes)


@given(pairs(), st.lists(st.integers(0, 40), max_size=4))
@settings(deadline=None)
def test_any_split_merges_to_the_whole(case, cuts):
    num_classes, prediction, label = case
    whole = counted(prediction, label, num_classes)
    merged = Confusion(num_classes)
    edges = [0, *sorted(min(cut, label.size) for cut in cuts), label.size]
    for start, stop in pairwise(edges):
        part = slice(start, stop)
        merged.merge(counted(prediction.ravel()[part], label.ravel()[part], num_classes))
    assert (merged.matrix == whole.matrix).all()


@given(pairs(), pairs())
@settings(deadline=None)
def test_each_image_keeps_its_margins(one, other):
    num_classes = max(one[0], other[0])
    confusion = Confusion(num_classes)
    matrices = []
    for _, prediction, label in (one, other):
        confusion.update(prediction, label)
        matrices.append(np.array(count_by_hand(prediction, label, num_classes)))
    expected = [[np.diag(m), m.sum(1), m.sum(0)] for m in matrices]
    assert confusion.counts().dtype == np.uint32
    assert confusion.counts().tolist() == np.array(expected).tolist()


@given(pairs())
@settings(deadline=None)
def test_the_path_for_bytes_equals_the_plain_one(case):
    num_classes, prediction, label = case
    fast = counted(prediction.astype(np.uint8), label.astype(np.uint8), num_classes)
    plain = counted(prediction.astype(np.int32), label.astype(np.int32), num_classes)
    assert (fast.matrix == plain.matrix).all()


def test_counts_equal_scikit_learn():
    random = np.random.default_rng(0)
    label = random.integers(0, 5, (40, 50), dtype=np.uint8)
    prediction = random.integers(0, 5, (40, 50), dtype=np.uint8)
    expected = confusion_matrix(label.ravel(), prediction.ravel(), labels=range(5))
    assert (counted(prediction, label, 5).matrix == expected).all()


def test_sums_over_two_to_the_53_stay_exact():
    confusion = counted(np.zeros(1, np.uint8), np.zeros(1, np.uint8), 2)
    confusion.matrix[0, 0] += 2**53
    confusion.update(np.zeros(1, np.uint8), np.zeros(1, np.uint8))
    assert confusion.matrix[0, 0] == 2**53 + 2


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_views_and_either_memory_order_are_counted(dtype):
    label = np.arange(24, dtype=dtype).reshape(4, 6) % 3
    prediction = np.asfortranarray(label[::-1])
    expected = count_by_hand(prediction, label, 3)
    assert counted(prediction, label, 3).matrix.tolist() == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_an_ignored_class_within_the_range_is_left_out(dtype):
    label, prediction = np.array([0, 0, 1], dtype), np.array([0, 1, 1], dtype)
    assert counted(prediction, label, 2, ignore_index=0).matrix.tolist() == [[0, 0], [0, 1]]


def test_more_classes_than_a_byte_holds():
    label, prediction = np.array([0, 299, 255]), np.array([299, 299, 0])
    confusion = counted(prediction, label, 300, ignore_index=-1)
    assert confusion.matrix[0, 299] == confusion.matrix[299, 299] == confusion.matrix[255, 0] == 1
    confusion.update(np.array([7], np.uint8), np.array([3], np.uint8))
    assert confusion.matrix[3, 7] == 1
    assert confusion.matrix.sum() == 4


def test_scores_by_hand():
    # Truth: class 0 three times, class 1 once; class 2 is predicted only; class 3 is nowhere.
    label = np.array([0, 0, 0, 1, IGNORE], np.uint8)
    prediction = np.array([0, 0, 2, 1, 2], np.uint8)
    scores = counted(prediction, label, 4).scores()
    np.testing.assert_array_equal(scores.iou, [2 / 3, 1, 0, np.nan])
    np.testing.assert_array_equal(scores.acc, [2 / 3, 1, np.nan, np.nan])
    assert scores.protocol == "pooled"
    assert scores.miou == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores.macc == pytest.approx((2 / 3 + 1) / 2)
    assert scores.fwiou == pytest.approx(3 / 4 * 2 / 3 + 1 / 4)
    assert scores.pacc == 3 / 4


def test_what_is_undefined_is_null_in_json():
    scores = Confusion(2).scores()
    assert scores.to_dict(["a", "b"])["iou"] == {"a": None, "b": None}
    assert scores.to_dict(["a", "b"])["miou"] is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        ([0], [7], r"the label holds 7, where 0 to 1 or 255 \(ignored\) can be"),
        ([9], [0], "the prediction holds 9, where 0 to 1 can be"),
        ([255], [0], "the prediction holds 255"),
        ([[0]], [0], r"the prediction is \(1, 1\), its label \(1,\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_counted(dtype, prediction, label, message):
    confusion = Confusion(2)
    with pytest.raises(InputError, match=message):
        confusion.update(np.array(prediction, dtype), np.array(label, dtype))
    assert confusion.matrix.sum() == 0


def test_negative_and_fractional_values_are_refused():
    with pytest.raises(InputError, match="the label holds -1"):
        Confusion(2).update(np.array([0]), np.array([-1]))
    with pytest.raises(InputError, match="the prediction holds float64; class indices are"):
        Confusion(2).update(np.array([0.5]), np.array([0]))


def test_any_prediction_may_stand_on_an_ignored_pixel():
    label = np.array([IGNORE], np.uint8)
    assert counted(np.array([200], np.uint8), label, 2).matrix.sum() == 0
    assert counted(np.array([-3]), label, 2).matrix.sum() == 0


def test_other_classes_are_refused():
    with pytest.raises(InputError, match=r"of 3 classes .* cannot be merged into one of 2"):
        Confusion(2).merge(Confusion(3))
    with pytest.raises(InputError, match="num_classes is 0"):
        Confusion(0)


def named(*keys):
    """One image per key, of three classes."""
    confusion = Confusion(3)
    for key in keys:
        random = np.random.default_rng(len(key))
        confusion.update(random.integers(0, 3, 50), random.integers(0, 3, 50), key)
    return confusion


def test_an_image_is_merged_once_only():
    confusion = named("a", "bb")
    with pytest.raises(InputError, match="bb: counted in both parts; merge each part once"):
        confusion.merge(named("bb", "ccc"))
    assert confusion.keys == ["a", "bb"]
    confusion.merge(named("ccc"))
    assert confusion.keys == ["a", "bb", "ccc"]
    assert len(confusion.counts()) == 3


def test_images_without_names_are_merged_as_they_come():
    confusion = named("")
    confusion.merge(named(""))
    assert confusion.keys == ["", ""]


def test_pairs_are_the_most_frequent_confusions():
    confusion = Confusion(3)
    confusion.matrix[:] = [[6, 2, 0], [1, 5, 4], [0, 0, 0]]
    assert confusion.pairs(2) == [(1, 2, 4, 0.4), (0, 1, 2, 0.25)]
    assert confusion.pairs(10)[2:] == [(1, 0, 1, 0.1)]
    assert Confusion(2).pairs(3) == []
    with pytest.raises(InputError, match="-1 pairs cannot be listed"):
        confusion.pairs(-1)


def test_groups_are_counted_as_if_they_were_classes():
    random = np.random.default_rng(0)
    label, prediction = random.integers(0, 5, (2, 300))
    member = np.array([0, 1, 0, 2, 1])
    groups, names = counted(prediction, label, 5).grouped(["stuff", "thing", "stuff", "x", "thing"])
    assert names == ("stuff", "thing", "x")
    assert (groups.matrix == counted(member[prediction], member[label], 3).matrix).all()
    with pytest.raises(InputError, match="images by themselves are not known"):
        groups.scores("per-image")


def test_tree_scores_go_from_root_to_leaf():
    random = np.random.default_rng(0)
    label, prediction = random.integers(0, 4, (2, 300))
    groups = ["stuff/sky", "stuff/ground", "thing", ""]
    levels = tree_scores(counted(prediction, label, 4), groups, ["cloud", "road", "car", "other"])
    assert [level.names for level in levels] == [
        ("stuff", "thing", "other (class)"),
        ("stuff/sky", "stuff/ground", "car (class)", "other (class)"),
        ("cloud", "road", "car", "other"),
    ]
    member = np.array([0, 0, 1, 2])
    expected = counted(member[prediction], member[label], 3).scores()
    np.testing.assert_array_equal(levels[0].scores.iou, expected.iou)
    np.testing.assert_array_equal(levels[2].scores.iou, counted(prediction, label, 4).scores().iou)


def test_a_group_and_a_class_of_one_name_stay_apart():
    label = np.arange(3)
    groups, classes = ["stuff", "stuff/indoor", "stuff/indoor"], ["indoor", "rug", "mat"]
    levels = tree_scores(counted(np.array([1, 1, 2]), label, 3), groups, classes)
    assert [level.names for level in levels] == [
        ("indoor (class)", "stuff/indoor"),  # and not "stuff" alone
        ("indoor", "rug", "mat"),
    ]
    np.testing.assert_array_equal(levels[0].scores.iou, [0, 2 / 3])


def test_what_is_saved_is_loaded(tmp_path):
    confusion = named("a", "über/b c", "")
    confusion.about = {"data": "camvid", "part": [1, 4]}
    confusion.save(tmp_path / "part.npz")
    loaded = Confusion.load(tmp_path / "part.npz")
    assert (loaded.matrix == confusion.matrix).all()
    assert (loaded.counts() == confusion.counts()).all()
    assert (loaded.keys, loaded.about) == (confusion.keys, confusion.about)
    loaded.update(np.array([1]), np.array([1]))  # and goes on counting
    assert loaded.matrix.sum() == confusion.matrix.sum() + 1


def test_a_part_without_images_is_saved_and_loaded(tmp_path):
    Confusion(4, ignore_index=9).save(tmp_path / "part.npz")
    loaded = Confusion.load(tmp_path / "part.npz")
    assert (loaded.num_classes, loaded.ignore_index, loaded.keys) == (4, 9, [])


def saved(path, **changes):
    """A file in which some of the true contents are exchanged."""
    confusion = named("a", "bb")
    about = {"ignore_index": 255, "keys": confusion.keys, "about": {}}
    arrays = {"matrix": confusion.matrix, "images": confusion.counts()}
    about |= {name: value for name, value in changes.items() if name in about}
    arrays |= {name: value for name, value in changes.items() if name in arrays}
    write_archive(path, arrays, about)
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": ["a"]},
        {"keys": ["a", 3]},
        {"keys": ["a", "a"]},
        {"keys": "ab"},
        {"ignore_index": None},
        {"about": []},
        {"matrix": np.zeros((0, 0), np.int64)},
        {"matrix": np.zeros((3, 4), np.int64)},
        {"matrix": np.zeros((), np.int64)},
        {"matrix": np.zeros((3, 3), np.int64)},
        {"matrix": -named("a", "bb").matrix},
        {"images": np.zeros((2, 3, 4), np.uint32)},
        {"images": np.zeros((1, 3, 3), np.uint32)},
        {"images": np.zeros((), np.uint32)},
        {"images": named("a", "bb").counts()[:, ::-1]},
    ],
)
def test_counts_that_contradict_each_other_are_refused(tmp_path, changes):
    Confusion.load(saved(tmp_path / "sound.npz"))
    with pytest.raises(InputError, match=r"bad.npz: its counts contradict each other"):
        Confusion.load(saved(tmp_path / "bad.npz", **changes))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "part.npz"
    with pytest.raises(InputError, match=r"part.npz: No such file or directory; give"):
        Confusion.load(path)
    with pytest.raises(InputError, match=r"no counts that atrous saved"):
        Confusion.load(tmp_path)
    pickled = np.array([{}], object)
    for arrays in ({"matrix": pickled}, {"matrix": np.zeros((2, 2))}, {"x": np.zeros(3, np.int64)}):
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=r"part.npz: no counts that atrous saved"):
            Confusion.load(path)
    np.savez_compressed(path, matrix=np.zeros((2, 2), np.int64))
    with pytest.raises(InputError, match="matrix is compressed"):
        Confusion.load(path)
    saved(path)
    write_archive(path, {"matrix": np.eye(2, dtype=np.int64)}, {"deep": []})
    with pytest.raises(InputError, match="no counts that atrous saved"):
        Confusion.load(path)


def stored(path, members):
    """A plain .npz of these bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def npy(header, data=b""):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\n" + data


@pytest.mark.parametrize(
    ("matrix", "about"),
    [
        ((b"<i8", b"9" * 30), b"{}"),  # a shape that no integer of numpy's holds
        ((b"<i8", b"1000000000, 1000000000"), b"{}"),
        ((b"<i8", b"9" * 5000), b"{}"),
        ((b"|O", b"1,"), b"{}"),
        ((b"<i8", b"0, 0"), b"[" * 100_000),
        ((b"<i8", b"0, 0"), b"\xff"),
    ],
)
def test_hostile_members_are_refused(tmp_path, matrix, about):
    form = b"{'descr': '%b', 'fortran_order': False, 'shape': (%b), }"
    members = {
        "matrix": npy(form % matrix),
        "images": npy(form % (b"<u4", b"0, 3, 0")),
        "about": npy(form % (b"|u1", b"%d," % len(about)), about),
    }
    with pytest.raises(InputError, match=r"part.npz: no counts that atrous saved \([^\n]+\)"):
        Confusion.load(stored(tmp_path / "part.npz", members))


def test_a_member_that_promises_more_than_the_file_holds_is_refused(tmp_path):
    path = saved(tmp_path / "part.npz")
    data = path.read_bytes()
    place = data.index(b"PK\x01\x02") + 20  # both sizes of "about", in the directory
    path.write_bytes(data[:place] + b"\xf0\xff\xff\x7f" * 2 + data[place + 8 :])
    with pytest.raises(InputError, match="about is compressed or cut off"):
        Confusion.load(path)


@pytest.mark.slow
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
@settings(deadline=None, max_examples=200)
def test_damaged_files_give_one_line(tmp_path_factory, place, content):
    path = saved(tmp_path_factory.mktemp("damaged") / "part.npz")
    data = bytearray(path.read_bytes())
    data[place % len(data) : place % len(data) + len(content)] = content
    path.write_bytes(data[: max(place, 1)] if place % 3 == 0 else data)
    try:
        Confusion.load(path)
    except InputError as error:
        assert "\n" not in str(error)

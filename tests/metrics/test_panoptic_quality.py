import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.errors import InputError
from atrous.metrics import Panoptic, PanopticQuality
from atrous.metrics import segments as segments_module
from atrous.report.scores import panoptic_text

CATEGORIES = [
    {"id": 1, "name": "cat", "isthing": 1},
    {"id": 7, "name": "dog", "isthing": 1},
    {"id": 90, "name": "sky", "isthing": 0},
    {"id": 200, "name": "road", "isthing": 0},
]
CAT, DOG, SKY, ROAD = 1, 7, 90, 200


def by_the_rules(prediction, truth):
    """The rules of panopticapi, one mask after the other: {category id: [IoUs, FP, FN]}."""
    (predicted, predictions), (true, truths) = prediction, truth
    scores = {category["id"]: [[], 0, 0] for category in CATEGORIES}
    masks = {segment["id"]: predicted == segment["id"] for segment in predictions}
    void = true == 0
    crowd = {}
    matched = set()
    for segment in truths:
        category, mask = segment["category_id"], true == segment["id"]
        if segment.get("iscrowd", 0):
            crowd[category] = mask  # the last one stays
            continue
        found = False
        for other in predictions:
            common = (mask & masks[other["id"]]).sum()
            union = masks[other["id"]].sum() + segment.get("area", mask.sum()) - common
            iou = common / (union - (masks[other["id"]] & void).sum())
            if other["category_id"] == category and iou > 0.5:
                scores[category][0].append(iou)
                matched.add(other["id"])
                found = True
        scores[category][2] += not found
    for segment in predictions:
        category, mask = segment["category_id"], masks[segment["id"]]
        excused = void | crowd.get(category, False)
        if segment["id"] not in matched and (mask & excused).sum() / mask.sum() <= 0.5:
            scores[category][1] += 1
    return scores


def added(references):
    total = {category["id"]: [[], 0, 0] for category in CATEGORIES}
    for reference in references:
        for category, (ious, fp, fn) in reference.items():
            total[category][0] += ious
            total[category][1] += fp
            total[category][2] += fn
    return total


def means(scores, categories):
    """PQ, SQ, RQ over those of `categories` that occur."""
    each = []
    for category in categories:
        ious, fp, fn = scores[category["id"]]
        if ious or fp or fn:
            segments = len(ious) + 0.5 * fp + 0.5 * fn
            sq = math.fsum(ious) / len(ious) if ious else 0.0
            each.append((math.fsum(ious) / segments, sq, len(ious) / segments))
    return np.mean(each, axis=0) if each else np.full(3, np.nan)


def drawn(random, shape, ids):
    """A map of rectangles, single pixels and some void, with segments of random categories."""
    image = np.zeros(shape, np.int32)
    for segment_id in ids:
        top, left = (int(random.integers(0, size)) for size in shape)
        height, width = random.integers(1, 9, 2)
        image[top : top + height, left : left + width] = segment_id
    return image


def described(random, image, categories=None):
    """Segments for the ids of a map; a category is drawn where none is given."""
    categories = categories or {}
    return [
        {"id": int(i), "category_id": categories.get(i, int(random.choice([CAT, DOG, SKY, ROAD])))}
        for i in random.permutation(np.unique(image[image > 0]))
    ]


def random_pair(seed):
    """A truth with crowds, and a prediction that is more or less like it."""
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 20, 2))
    ids = random.integers(1, 1 << 24, random.integers(0, 12))
    true = drawn(random, shape, ids)
    truths = described(random, true)
    for truth in truths:
        truth["iscrowd"] = int(random.random() < 0.25)
        if random.random() < 0.2:
            truth["area"] = int((true == truth["id"]).sum() + random.integers(0, 4))
    predicted = np.roll(true, random.integers(-1, 2, 2), (0, 1)) if random.random() < 0.8 else true
    noise = drawn(random, shape, random.integers(1, 1 << 24, 3))
    predicted = np.where(random.random(shape) < random.random(), predicted, noise)
    known = {t["id"]: t["category_id"] for t in truths if random.random() < 0.9}
    return Panoptic(predicted, described(random, predicted, known)), Panoptic(true, truths)


def scored(*pairs):
    quality = PanopticQuality(CATEGORIES)
    for prediction, truth in pairs:
        quality.update(prediction, truth)
    return quality


@pytest.mark.slow
def test_a_thousand_random_maps_score_as_the_rules_say():
    pairs = [random_pair(seed) for seed in range(1000)]
    references = [by_the_rules(*pair) for pair in pairs]
    for pair, expected in zip(pairs, references, strict=True):
        scores = scored(pair).scores()
        assert {i: [score.tp, score.fp, score.fn] for i, score in scores.per_class.items()} == {
            i: [len(ious), fp, fn] for i, (ious, fp, fn) in expected.items()
        }
        np.testing.assert_allclose(
            [scores.pq, scores.sq, scores.rq], means(expected, CATEGORIES), rtol=0, atol=1e-12
        )
    scores = scored(*pairs).scores()
    expected = added(references)
    for mean, part in (
        (scores, CATEGORIES),
        (scores.things, CATEGORIES[:2]),
        (scores.stuff, CATEGORIES[2:]),
    ):
        np.testing.assert_allclose(
            [mean.pq, mean.sq, mean.rq], means(expected, part), rtol=0, atol=1e-12
        )
    # The maps are worth something: each kind of outcome comes in hundreds.
    assert min(scores_of(scores, kind) for kind in ("tp", "fp", "fn")) > 300


def scores_of(scores, kind):
    return sum(getattr(score, kind) for score in scores.per_class.values())


def counts(prediction, truth, category=CAT):
    score = scored((prediction, truth)).scores().per_class[category]
    return score.tp, score.fp, score.fn


def row(*ids):
    return np.array([ids])


def segment(i, category=CAT, **more):
    return {"id": i, "category_id": category, **more}


def test_iou_of_one_half_is_no_match():
    truth = (row(1, 1, 1, 0), [segment(1)])
    half = (row(2, 2, 2, 2), [segment(2)])  # void is out of the union: 3 / 3
    assert counts(half, truth) == (1, 0, 0)
    truth = (row(1, 1, 1, 3), [segment(1), segment(3, SKY)])
    assert counts((row(2, 2, 0, 2), [segment(2)]), truth) == (0, 1, 1)  # 2 / 4
    assert counts((row(2, 2, 0, 0), [segment(2)]), truth) == (1, 0, 0)  # 2 / 3


def test_the_true_area_is_the_stated_one_and_the_predicted_one_is_counted():
    truth = (row(1, 1, 0), [segment(1, area=4)])
    prediction = (row(5, 5, 0), [segment(5, area=999)])
    assert counts(prediction, truth) == (0, 1, 1)  # 2 / 4
    truth = (row(1, 1, 0), [segment(1, area=3.0)])
    assert scored((prediction, truth)).scores().pq == 2 / 3


def test_other_categories_do_not_match():
    prediction, truth = (row(1, 1), [segment(1, DOG)]), (row(1, 1), [segment(1)])
    assert counts(prediction, truth) == (0, 0, 1)
    assert counts(prediction, truth, DOG) == (0, 1, 0)


def test_a_crowd_is_neither_matched_nor_missed():
    truth = (row(1, 1, 1), [segment(1, iscrowd=1)])
    assert counts((row(0, 0, 0), []), truth) == (0, 0, 0)
    assert counts((row(1, 1, 1), [segment(1)]), truth) == (0, 0, 0)
    assert counts((row(1, 1, 1), [segment(1, DOG)]), truth, DOG) == (0, 1, 0)


def test_a_false_positive_needs_half_of_itself_on_what_is_labelled():
    crowd = [segment(1, iscrowd=1), segment(2, SKY)]
    prediction = (row(9, 9, 9, 9), [segment(9)])
    assert counts(prediction, (row(1, 0, 2, 2), crowd)) == (0, 1, 0)  # exactly one half
    assert counts(prediction, (row(1, 0, 0, 2), crowd)) == (0, 0, 0)


@pytest.mark.parametrize(("order", "fp"), [([1, 2], 1), ([2, 1], 0)])
def test_only_the_last_crowd_of_a_category_excuses(order, fp):
    truth = (row(1, 1, 1, 2), [segment(i, iscrowd=1) for i in order])
    assert counts((row(9, 9, 9, 9), [segment(9)]), truth) == (0, fp, 0)


def test_scores_by_hand():
    # Of two cats one is found with IoU 3 / 4; the sky is found; no dog and no road is anywhere.
    truth = (row(1, 1, 1, 1, 2, 3, 3), [segment(1), segment(2), segment(3, SKY)])
    prediction = (row(1, 1, 1, 0, 0, 3, 3), [segment(1), segment(3, SKY)])
    scores = scored((prediction, truth)).scores()
    cat = scores.per_class[CAT]
    assert (cat.sq, cat.rq, cat.pq) == (0.75, 1 / 1.5, 0.75 / 1.5)
    assert (scores.things.pq, scores.stuff.pq, scores.pq) == (0.5, 1, 0.75)
    assert (scores.num_categories, scores.things.num_categories) == (2, 1)
    table = scores.to_dict()
    assert table["per_class"]["dog"] == {
        "isthing": True, "pq": None, "sq": None, "rq": None, "tp": 0, "fp": 0, "fn": 0,
    }  # fmt: skip
    assert json.loads(json.dumps(table, allow_nan=False))["things"]["pq"] == 0.5


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (0, 0)])
def test_nothing_to_score_is_nan(shape):
    void = (np.zeros(shape, np.uint8), [])
    for quality in (scored(), scored((void, void))):
        scores = quality.scores()
        assert np.isnan([scores.pq, scores.sq, scores.rq, scores.things.pq]).all()
        assert scores.num_categories == 0
        assert scores.to_dict()["pq"] is None
        assert "all" in panoptic_text(scores, 0)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6), st.randoms())
@settings(deadline=None, max_examples=30)
def test_merged_in_any_order_and_grouping_it_is_the_same_to_the_last_bit(seeds, random):
    pairs = [random_pair(seed) for seed in seeds]
    whole = scored(*pairs).scores().to_dict()
    random.shuffle(pairs)
    cut = random.randint(0, len(pairs))
    merged = scored(*pairs[cut:])
    merged.merge(scored(*pairs[:cut]))
    assert merged.scores().to_dict() == whole


def test_the_sum_of_many_ious_is_exact():
    random = np.random.default_rng(0)
    quality, ious = PanopticQuality(CATEGORIES), []
    for size in random.integers(2, 10_000, 500).tolist():
        common = int(random.integers(size // 2 + 1, size + 1))
        predicted = np.arange(size)[None] < common
        quality.update(
            (predicted.astype(np.uint8), [segment(1)]),
            (np.ones((1, size), np.uint8), [segment(1)]),
        )
        ious.append(Fraction(common / size))
    assert quality.scores().per_class[CAT].sq == float(sum(ious) / len(ious))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64, ">i4"])
def test_ids_of_any_width_order_and_layout_are_read(dtype):
    ids = np.asfortranarray(np.array([[1, 1, 0, 9], [1, 200 % 128, 9, 9]]).astype(dtype))
    panoptic = (ids[:, ::-1], [segment(int(i)) for i in np.unique(ids[ids > 0])])
    plain = (ids[:, ::-1].astype(np.int32), panoptic[1])
    assert counts(panoptic, plain) == (len(panoptic[1]), 0, 0)


def test_an_image_of_several_strips_is_counted_as_one(monkeypatch):
    pair = random_pair(3)
    whole = scored(pair).scores().to_dict()
    monkeypatch.setattr(segments_module, "_STRIP", 7)
    assert scored(pair).scores().to_dict() == whole


ONE = (row(1, 1), [segment(1)])


@pytest.mark.parametrize(
    ("panoptic", "message"),
    [
        ((row(1, 2), [segment(1)]), "the map holds the id 2, which none of the segments has"),
        ((row(1, -3), [segment(1)]), "the map holds the id -3"),
        ((row(1, 1), [segment(1), segment(2)]), "segment 2 has no pixels in the map"),
        ((row(1, 1), [segment(1), segment(1)]), "two segments have the id 1"),
        ((row(0, 0), [segment(0)]), "a segment has the id 0; ids count from 1"),
        ((row(1, 1), [segment(2**64)]), "a segment has the id 18446744073709551616"),
        ((row(1, 1), [segment("1")]), "a segment has the id '1'"),
        ((row(1, 1), [segment(True)]), "a segment has the id True"),
        ((row(1, 1), [{"category_id": 1}]), "a segment has the id None"),
        ((row(1, 1), [segment(1, 3)]), "segment 1 has the category_id 3, which is none"),
        ((row(1, 1), [segment(1, [])]), r"segment 1 has the category_id \[\]"),
        ((row(1, 1), [segment(1, iscrowd=2)]), "segment 1 has iscrowd 2"),
        ((row(1, 1), [segment(1, area=-5)]), "segment 1 has the area -5"),
        ((row(1, 1), [segment(1, area=0)]), "segment 1 has the area 0"),
        ((row(1, 1), [segment(1, area=math.nan)]), "segment 1 has the area nan"),
        ((row(1, 1), [segment(1, area=math.inf)]), "segment 1 has the area inf"),
        ((row(1, 1), [segment(1, area=10**30)]), "segment 1 has the area 1000"),
        ((row(1, 1), [segment(1, area="2")]), "segment 1 has the area '2'"),
        ((row(1, 1), [segment(1, area=True)]), "segment 1 has the area True"),
        ((row(1, 1), [5]), "5 is no segment"),
        ((row(1, 1), 5), "the segments are 5, where a list"),
        ((row(1.0, 1.0), [segment(1)]), "segment ids are an array of integers"),
        ((np.array([1, 1]), [segment(1)]), "shape"),
    ],
)
def test_what_does_not_fit_is_refused_on_either_side_and_not_counted(panoptic, message):
    for prediction, truth in ((panoptic, ONE), (ONE, panoptic)):
        quality = PanopticQuality(CATEGORIES)
        with pytest.raises(InputError, match=message) as caught:
            quality.update(prediction, truth)
        assert "\n" not in str(caught.value)
        assert quality.counts.sum() == 0


def test_the_side_that_is_wrong_is_named():
    with pytest.raises(InputError, match=r"^prediction: segment 1 has the area -5"):
        scored(((row(1, 1), [segment(1, area=-5)]), ONE))
    with pytest.raises(InputError, match=r"^truth: segment 1 has the area -5"):
        scored((ONE, (row(1, 1), [segment(1, area=-5)])))


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([], "there are no categories"),
        ([{"id": 1, "name": "a"}], "category .* needs a number as id, a name, and isthing"),
        ([{"id": "1", "name": "a", "isthing": 1}], "needs a number as id"),
        ([{"id": 1, "name": "a\nb", "isthing": 1}], "needs a number as id, a name"),
        ([{"id": 1, "name": "a", "isthing": 2}], "isthing"),
        ([7], "category 7"),
        ([CATEGORIES[0], {"id": 1, "name": "b", "isthing": 1}], "two categories have the id 1;"),
        ([CATEGORIES[0], {**CATEGORIES[1], "name": "cat"}], "two categories have the name 'cat'"),
    ],
)
def test_categories_that_are_none_are_refused(categories, message):
    with pytest.raises(InputError, match=message):
        PanopticQuality(categories)


def test_other_categories_are_not_merged():
    with pytest.raises(InputError, match="different categories cannot be merged"):
        PanopticQuality(CATEGORIES).merge(PanopticQuality(CATEGORIES[:2]))

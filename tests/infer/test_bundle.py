"""Metadata go into a bundle and come back; what is no bundle is refused."""

import json

import pytest
from color_bundle import TAXONOMY

from atrous.errors import InputError
from atrous.infer.bundle import BundleMetadata
from atrous.run import Normalization, Run, RunData

METADATA = BundleMetadata(
    taxonomy=TAXONOMY,
    stride=4,
    precision="int8",
    model="fcn on resnet18, output stride 16",
    licence="Apache-2.0",
    preprocessing={"mean": [0.5], "std": [0.25]},
    recipe={"base_lr": 0.01},
    scores={"camvid val": {"miou": 0.7, "protocol": "pooled"}},
    version="0.1.0",
)


def test_properties_come_back() -> None:
    properties = METADATA.to_properties()
    assert all(key.startswith("atrous.") for key in properties)
    assert json.loads(properties["atrous.stride"]) == 4
    assert BundleMetadata.from_properties(properties, "x.onnx") == METADATA


def test_other_properties_are_left_alone() -> None:
    properties = {"author": "someone", **METADATA.to_properties()}
    assert BundleMetadata.from_properties(properties, "x.onnx") == METADATA


def test_a_plain_onnx_file_is_no_bundle() -> None:
    with pytest.raises(InputError, match=r"x\.onnx: an \.onnx file, but no atrous bundle"):
        BundleMetadata.from_properties({"author": "someone"}, "x.onnx")


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("format", "3", "newer atrous"),
        ("stride", "0", "metadata: stride: expected int >= 1; export the bundle again"),
        ("stride", "{", "damaged"),
        ("precision", '"fp4"', "metadata: precision: unknown 'fp4'. There are: fp32, int8"),
        ("taxonomy", "{}", "taxonomy"),
        ("recipe", "7", "metadata: recipe: expected object, got int"),
        ("model", '"\\ud800"', "damaged"),  # which no terminal and no file takes
        ("licence", '"\\udfff"', "damaged"),
        ("bands", "[0]", "bands 0: their numbers count from 1"),
        ("bands_of", "true", "metadata: bands_of: expected int"),
        ("value_range", "[9, 3]", "range 9 3: give black, then white"),
        ("taxonomy", json.dumps(TAXONOMY.to_dict() | {"classes": ["\x1b[2J", "b"]}), "no text"),
    ],
)
def test_damaged_metadata_are_refused(key: str, text: str, message: str) -> None:
    properties = METADATA.to_properties() | {f"atrous.{key}": text}
    with pytest.raises(InputError, match=message) as error:
        BundleMetadata.from_properties(properties, "x.onnx")
    assert str(error.value).startswith("x.onnx: ")


def test_metadata_of_a_run() -> None:
    run = Run(
        model={"name": "fcn", "backbone": "resnet18", "output_stride": 16, "in_channels": 1},
        normalization=Normalization(mean=(0.5,), std=(0.25,)),
        taxonomy=TAXONOMY,
        data=RunData(name="shapes", licence="CC0"),
        recipe={"base_lr": 0.01},
    )
    metadata = BundleMetadata.from_run(run, stride=4)
    assert metadata.model == "fcn on resnet18, output stride 16"
    assert (metadata.precision, metadata.licence, metadata.scores) == ("fp32", "CC0", {})

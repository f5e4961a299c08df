"""The bundle: one ordinary .onnx file that explains itself, and its metadata.

The graph takes `image: uint8 (B, H, W, C)` of any size, normalises and pads inside, and returns
`logits: float32 (B, K, ceil(H / stride), ceil(W / stride))`. C is 3, sRGB, unless `bands`
names others. The metadata hold everything else that a user of the file must know, as JSON values
under keys that begin with "atrous."; no other file is needed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from atrous import __version__
from atrous.decode import convert
from atrous.errors import InputError
from atrous.images.bands import Bands
from atrous.taxonomy import Taxonomy
from atrous.text import one_line

if TYPE_CHECKING:
    from atrous.run import Run

__all__ = ["FORMAT", "BundleMetadata", "Precision"]

FORMAT = 2
"""Version of the metadata that is read; a reader refuses a higher number than its own. A bundle of
`aligned` cells has 2, since version 1 would misread it; all others have 1."""

Precision = Literal["fp32", "int8"]

_PREFIX = "atrous."
_FIX = "export the bundle again"


@dataclass(frozen=True, kw_only=True)
class BundleMetadata:
    """Metadata of a bundle."""

    taxonomy: Taxonomy
    task: str = "semantic"
    stride: Annotated[int, msgspec.Meta(ge=1)]
    """Image pixels per logit, in both directions."""
    aligned: bool = False
    """The logits' cells lie on the pixels 0, stride, 2 stride, ... (docs/conventions.md)."""
    precision: Precision
    bands: tuple[int, ...] = ()
    """Bands of a TIFF, from 1, one for each channel; none: colours."""
    bands_of: int | None = None
    """Number of bands in the files of the training data; None for colours."""
    value_range: tuple[float, float] | None = None
    """Values of these files that are black and white; None: 0 and 255."""
    model: str
    """Description: "deeplabv3plus on tf_efficientnet_lite2, output stride 16"."""
    licence: str
    """Licence of the weights, with the terms of the training data."""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """Mean and standard deviation; for information, since the graph applies them itself."""
    recipe: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    """Each with its data set, split and protocol."""
    version: str
    """Version of atrous that wrote the file."""

    def __post_init__(self) -> None:
        assert self.reading  # checks the bands

    @property
    def reading(self) -> Bands:
        """How files are read as images of the model."""
        return Bands(self.bands, self.value_range, of=self.bands_of)

    @property
    def channels(self) -> int:
        """C of the images."""
        return self.reading.channels

    def check_channels(self, channels: int, model: str) -> None:
        """Refuse images of another number of channels."""
        if channels != self.channels:
            raise InputError(
                f"{channels} bands, where {model} takes {self.channels}; give images of these, or "
                f"bands in dataset.toml if their files have {self.channels} or more"
            )

    def to_properties(self) -> dict[str, str]:
        """Return the metadata properties of the .onnx file."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        values |= {"taxonomy": self.taxonomy.to_dict(), "format": FORMAT if self.aligned else 1}
        if not self.aligned:
            del values["aligned"]
        return {_PREFIX + name: json.dumps(value) for name, value in values.items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], name: str) -> "BundleMetadata":
        """Read the metadata properties of the file `name`."""
        if _PREFIX + "format" not in properties:
            raise InputError(
                f"{name}: an .onnx file, but no atrous bundle; make one with: atrous export RUN"
            )
        try:
            values = {
                key.removeprefix(_PREFIX): json.loads(text)
                for key, text in properties.items()
                if key.startswith(_PREFIX)
            }
            json.dumps(values, ensure_ascii=False).encode()  # refuses half a surrogate pair
        except (ValueError, RecursionError) as error:
            raise damaged(name, error) from None
        if convert(values, _Format, f"{name}: metadata", _FIX).format > FORMAT:
            raise InputError(
                f"{name}: written by a newer atrous; upgrade with: pip install -U atrous"
            )
        return convert(values, cls, f"{name}: metadata", _FIX)

    @classmethod
    def from_run(cls, run: "Run", *, stride: int, aligned: bool = False) -> "BundleMetadata":
        """Describe the fp32 model of a run."""
        reading = Bands(tuple(run.data.bands or ()), run.data.range or None)
        return cls(
            taxonomy=run.taxonomy,
            stride=stride,
            aligned=aligned,
            precision="fp32",
            model="{name} on {backbone}, output stride {output_stride}".format_map(run.model),
            licence=run.data.licence,
            preprocessing=msgspec.to_builtins(run.normalization),
            bands=reading.numbers,
            bands_of=run.data.bands_of or None,
            value_range=reading.value_range,
            recipe=run.recipe,
            version=__version__,
        )


class _Format(msgspec.Struct):
    format: int


def damaged(name: str, error: Exception) -> InputError:
    """Return the error for metadata of the bundle `name` that cannot be decoded."""
    reason = one_line(error) or type(error).__name__
    return InputError(f"{name}: its metadata are damaged ({reason}); {_FIX}")

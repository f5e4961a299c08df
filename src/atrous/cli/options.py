"""Options that several commands share."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from atrous.cli.progress import resolved

if TYPE_CHECKING:
    from atrous.infer.segmenter import Segmenter

Flag = Annotated[bool, Parameter(negative=())]
"""An option without a value, such as --flip; there is no --no-flip."""

Count = Annotated[int, Parameter(validator=Number(gte=1))]
"""A number of 1 or more."""

Size = Annotated[tuple[int, int], Parameter(validator=Number(gte=1))]
"""Height and width, in pixels."""

Json = Annotated[bool, Parameter(name="--json", negative=())]
"""--json, for a parameter of another name."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model is run."""

    runtime: str = "auto"
    """Runtime: auto; onnxruntime, onnxruntime:cuda (or :tensorrt, :coreml, :directml), openvino,
    openvino:bf16 for bundles; torch, torch:cuda, torch:cuda-bf16, ... for run folders. auto is the
    one that was fastest here in `atrous bench`."""
    threads: int | None = None
    """Threads to use; by default as many as this process may run on."""
    flip: Flag = False
    """Average the predictions of each image and its mirror image: slower, mostly better."""
    scales: tuple[float, ...] = ()
    """Average the predictions of each image at these factors of its size, such as 1 1.25 1.5."""
    crf: str | None = None
    """Refine labels by a dense CRF with these parameters: deeplab, kazuto or kraehenbuehl."""

    def load(
        self,
        model: str,
        calls: int = 1,
        tile: int | None = None,
        *,
        with_confidence: bool = False,
        with_certainty: bool = False,
    ) -> "Segmenter":
        """Open a model by its name or path; fetch it first if it is published or on the hub."""
        from atrous.infer.runtime_selection import default_runtime
        from atrous.infer.segmenter import load

        path = resolved(model)
        options = asdict(self) | {"runtime": self.runtime or default_runtime(path)}
        return load(
            path,
            calls=calls,
            tile=tile,
            with_confidence=with_confidence,
            with_certainty=with_certainty,
            **options,
        )


MODEL_DEFAULTS = ModelOptions()

"""Photos in, dense labels out.

The data flow, in two halves with one file between them:

    LEARN (extra: train)                        USE (no torch)
    dataset.toml + files                        photo, folder, raster, video
      -> data: Sample -> Batch                    -> images: uint8 (H, W, C)
      -> models: image -> logits                  -> infer.runtimes: image -> low-resolution logits
      -> train: loss -> run folder                -> infer.upsample: exact upsample + argmax
      -> export -------> model.onnx (bundle) -->  -> infer.segmenter: Segmentation
                                                  -> labels, overlay, numbers

evaluation and metrics, where predictions meet truth, serve both; report shows them; cli has one
file per command. docs/architecture.md has the map of the modules.

In Python:

    import atrous
    segment = atrous.load("camvid")        # a shipped name, a bundle, or a run folder
    result = segment("street.jpg")         # path, Pillow image or uint8 array
    result.labels                          # (H, W) uint8 train ids
    result.coverage()                      # {"road": 0.41, ...}
    result.overlay().save("overlay.png")

The names below are imported when they are first used, so that `import atrous` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atrous.errors import InputError
    from atrous.infer.segmenter import Segmentation, Segmenter, load
    from atrous.taxonomy import Taxonomy

__version__ = "0.1.0"

__all__ = ["InputError", "Segmentation", "Segmenter", "Taxonomy", "__version__", "load"]

_HOMES = {
    "InputError": "atrous.errors",
    "Segmentation": "atrous.infer.segmenter",
    "Segmenter": "atrous.infer.segmenter",
    "Taxonomy": "atrous.taxonomy",
    "load": "atrous.infer.segmenter",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'atrous' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

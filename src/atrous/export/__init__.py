"""Export: a training run becomes a self-describing .onnx file, in float or int8, with proof."""

from atrous.export.certificate import Certificate
from atrous.export.pipeline import Exported, export_bundle, export_run
from atrous.export.remote import fetch

__all__ = ["Certificate", "Exported", "export_bundle", "export_run", "fetch"]

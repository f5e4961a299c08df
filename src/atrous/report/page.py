"""Parts of all pages; a page is one file with small pictures inside, and loads nothing.

Templates escape the names of files, classes and models, which are untrusted.
"""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from atrous.draw import colorize
from atrous.taxonomy import IGNORE_INDEX, Taxonomy

_OPACITY = 0.55
_QUALITY = 80


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill in a template of this folder."""
    environment = Environment(
        loader=PackageLoader("atrous", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(values)


def data_uri(picture: Image.Image) -> str:
    """Return the picture as a JPEG in a data URI."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def css_color(color: tuple[int, int, int]) -> str:
    """Return an sRGB colour in CSS.

    >>> css_color((255, 0, 16))
    '#ff0010'
    """
    return "#" + bytes(color).hex()


def overlay(photo: Image.Image, label: NDArray[np.integer[Any]], taxonomy: Taxonomy) -> Image.Image:
    """Lay the colours of a label (H, W) over a small photo; ignored pixels show the photo alone."""
    small = Image.fromarray(label.astype(np.uint8)).resize(photo.size, Image.Resampling.NEAREST)
    labels = np.asarray(small)  # (h, w)
    mixed = Image.blend(photo, Image.fromarray(colorize(labels, taxonomy)), _OPACITY)
    mixed.paste(photo, mask=Image.fromarray(labels == IGNORE_INDEX))
    return mixed

"""TIFFs of any bands, as rasterio writes them."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio


def write_tiff(path: Path, image: np.ndarray, **profile: Any) -> Path:
    """Write (H, W, C); `profile` is what rasterio.open takes, such as crs, transform, nodata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = image.shape
    shape = {"height": height, "width": width, "count": count, "dtype": image.dtype}
    with rasterio.open(path, "w", **({"driver": "GTiff"} | shape | profile)) as file:
        file.write(image.transpose(2, 0, 1))
    return path

"""Images and label maps, from files to arrays and back."""

from atrous.images.bands import Bands
from atrous.images.label_maps import read_label, write_label
from atrous.images.photos import read_image, write_image
from atrous.images.pixels import read_pixels

__all__ = ["Bands", "read_image", "read_label", "read_pixels", "write_image", "write_label"]

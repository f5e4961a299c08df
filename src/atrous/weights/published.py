"""Checkpoints that other projects publish: the table, and where each one is kept."""

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from atrous import decode
from atrous.errors import InputError
from atrous.files import no_such_file


@dataclass(frozen=True, kw_only=True)
class Published:
    """A checkpoint that a project publishes."""

    name: str
    """PROJECT/MODEL."""
    layout: str
    """A layout of `atrous.weights.importers`."""
    url: str
    sha256: str = ""
    """First digits of the file's checksum, if they are known."""
    data: str
    """Built-in set whose classes it knows."""
    miou: float | None = None
    """As published, by the project's own protocol, 0 to 1; None: nothing is published."""
    protocol: str = ""
    """Images and settings of that score."""
    licence: str
    """Licence of the project."""
    by_hand: bool = False
    """The address is a page for people."""

    @property
    def suffix(self) -> str:
        """The end of the file's name, in the cache."""
        return ".tflite" if self.layout == "tensorflow" else ".pth"


_TABLE = Path(__file__).with_name("published.toml")
_ENTRIES = tomllib.loads(_TABLE.read_text("utf-8"))
PUBLISHED = {
    name: decode.convert({"name": name, **entry}, Published, _TABLE, "install atrous again")
    for name, entry in _ENTRIES.items()
}
"""By name."""

GROUPS = {
    "Everyday photos, indoors and outdoors: 150 classes (ADE20K)": ("ade20k151", "ade20k"),
    "People, animals, vehicles, furniture: 20 classes (PASCAL VOC)": ("voc2012",),
    "Things and what surrounds them: 171 classes (COCO-Stuff)": (
        "cocostuff",
        "cocostuff10k",
        "cocostuff182",
    ),
    "Streets, from a car: 11 or 19 classes (CamVid, Cityscapes)": ("camvid", "cityscapes"),
}
"""What a person looks for -> the built-in sets whose classes show it."""


def group_of(data: str) -> str:
    """Return the key of `GROUPS` that holds a data set."""
    return next((group for group, sets in GROUPS.items() if data in sets), "Other photos")


def no_such_weights(name: str) -> InputError:
    """Return the error for a name that is neither a file nor in `PUBLISHED`."""
    near = get_close_matches(name, PUBLISHED, n=1, cutoff=0.8)
    if not near:
        return no_such_file(Path(name))
    return InputError(f"{name}: no such file or published weights. Did you mean {near[0]}?")

"""Words in the names of folders and files (words.toml)."""

import tomllib
from importlib import resources


def one_of(*kinds: str) -> str:
    """The regular expression of all words of these kinds."""
    words = tomllib.loads((resources.files("atrous.doctor.layout") / "words.toml").read_text())
    return "|".join(word for kind in kinds for word in words[kind])

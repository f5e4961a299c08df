"""Files of format 1, as a user finds them in the current folder."""

import lzma
import shutil
from pathlib import Path

import pytest

FILES = Path(__file__).parent / "files"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of `files`, unpacked."""
    folder = tmp_path / "files"
    shutil.copytree(FILES, folder)
    for packed in folder.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    monkeypatch.chdir(folder)
    return folder

"""A wheel built from the tree and installed elsewhere segments a photo: its data are inside."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.data.shapes import write_shapes

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_segments_a_photo(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"atrous-{atrous.__version__}-py3-none-any.whl"
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", site]
    subprocess.run([*install, wheel], check=True, capture_output=True)
    assert (site / "atrous/py.typed").is_file()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "atrous", "segment", ROOT / "docs/demo/street.jpg"]
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    labels = np.asarray(Image.open(elsewhere / "street.labels.png"))
    names = ["sky", "building", "pole", "road"]
    share = {name: (labels == k).mean() for k, name in enumerate(names)}
    # A street between brick houses: what covers most of it must be found in its place.
    assert share["building"] > 0.3 and share["sky"] > 0.1 and share["road"] > 0.05
    assert (labels[:100, 420:600] == 0).mean() > 0.9
    write_shapes(elsewhere / "shapes", 4, 2)
    for arguments in (["data", "list"], ["data", "doctor", "shapes", "--html", "page.html"]):
        command = [sys.executable, "-m", "atrous", *arguments]
        done = subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "</html>" in (elsewhere / "page.html").read_text("utf-8")

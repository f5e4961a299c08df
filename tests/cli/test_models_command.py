import json
import subprocess
import sys

import pytest

from atrous.cli.models import models
from atrous.models.catalogue import BACKBONES, MODELS
from atrous.weights.published import PUBLISHED


def test_listing_fits_a_terminal(capsys):
    models()
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert all(name in text for name in [*MODELS, *BACKBONES, *PUBLISHED])


def test_json(capsys):
    models(json_output=True)
    listing = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listing["models"]] == list(MODELS)
    assert [row["name"] for row in listing["backbones"]] == list(BACKBONES)
    assert listing["models"][0]["output_strides"] == [8, 16, 32]
    assert isinstance(listing["shipped"], list)
    assert [row["name"] for row in listing["published"]] == list(PUBLISHED)
    assert all(row["url"].startswith("https://") for row in listing["published"])


@pytest.mark.slow
@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_lists_without_torch(flag):
    code = (
        "import sys; from atrous.cli import main; code = main(['models', *sys.argv[1:]]);"
        "sys.exit(code or int('torch' in sys.modules or 'timm' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *flag], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

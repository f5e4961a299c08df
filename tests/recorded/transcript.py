"""What a call of the command line did, as text; and whether two such texts tell the same."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

ROUNDING = 1e-6
"""How far a number of 5 decimals or more may be from the recorded one, as a part of it.

Processors sum in different orders. Numbers of fewer decimals are the same, as are whole ones.
"""

POINTS = 0.5
"""How far a number may be that a trained network decided: half a point of a percentage, a
hundredth of that of a fraction; or a hundredth of the number itself, whole ones from 1000 as well.

The same network labels some pixels otherwise on another processor (VNNI, AVX-512, NEON).
"""

_Rule = tuple[str, str | Callable[[re.Match[str]], str]]

_MASKS: tuple[_Rule, ...] = (
    (r"(?: *\b[\d.]+|<1) ms\b", " <time> ms"),
    (r"[\d.]+ s/step", "<time> s/step"),
    (r"[\d.]+ a second", "<number> a second"),
    (r"(left|in) \d\d:\d\d", r"\1 <time>"),
    (r'("(?:seconds\w*|start|threads)": )[\d.e-]+', r"\1<number>"),
    (r'("(?:memory|\w*bytes)": )\d+', r"\1<number>"),
    (r'("processor": )".*"', r'\1"<processor>"'),
    (r'("commit": )(?:".*"|null)', r'\1"<commit>"'),
    (r'("[\w.]+": )"\d+\.\d+\.\d+[^"]*"', r'\1"<version>"'),
    (r"\b\d+ threads?\b", "<threads>"),
    (r"^( *).*, <threads>(\.?)$", r"\1<processor>, <threads>\2"),  # a line of its own
    (r"[\d.]+ [kMGT]B are free", "<number> GB are free"),
    (r"tfevents\.\S+", "tfevents.<name>"),
    (r"^\d+\.\d+\.\d+$", "<version>"),
    (r"127\.0\.0\.1:\d+", "<server>"),
)
"""What no two machines, and no two runs, have in common."""

_MEASURED = ((r" *\b\d+\.\d+(?:e-\d+)?(?!\w)|(?<=\S) {5,}\d+$|\b\d+(?= MB\b)", " <number>"),)
"""All numbers with decimals, and whole ones in the last column of a table or of megabytes."""

_OF_A_NETWORK: tuple[_Rule, ...] = (
    (r" *█+", ""),
    (r"^(  \w+) +(?=(?:< )?[\d.]+ %$)", r"\1 "),
    (r"^ +\S+ +(?:0\.0|< 0\.1) %\n", ""),
    (r'^ *"[^"]+": (?:0\.000\d+|[\d.]+e-\d+),?\n', ""),
    (r",(\n *\})", r"\1"),
    (r"kept in float: .* the noise\)", "kept in float: <convolutions>"),
    (r"[\d.]+ MB  int8", "<size> MB  int8"),
    (r"(labels equal to torch fp32 on) [\d.]+", r"\1 <number>"),
    (r'("(?:agreement|worst_change)": )[-\d.e]+', r"\1<number>"),
    (r"worst class \w+ ", "worst class <class> "),
    (r"(?:^  \w+(?: +[-+]?[\d.]+){3}\n)+", lambda rows: "".join(sorted(rows[0].splitlines(True)))),
)
"""What a few pixels decide: bars, classes of less than a thousandth of an image and the width that
their names take, the order of the classes in a certificate, and what stays in float."""

_NUMBER = re.compile(r" *(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?(?!\w|\.\d)")


def masked(text: str, here: Path, by_network: bool, measured: bool) -> str:
    """Take out of a text what is this machine's and this moment's."""
    text = text.replace(str(here), "<here>")
    for pattern, replacement in _MASKS + _OF_A_NETWORK * by_network + _MEASURED * measured:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def differences(recorded: str, now: str, by_network: bool) -> Iterator[str]:
    """Yield the lines that differ in a word, in the layout, or in a number by more than it may."""
    before, after = recorded.splitlines(), now.splitlines()
    if len(before) != len(after):
        yield f"{len(before)} lines were recorded, now there are {len(after)}"
    for number, (old, new) in enumerate(zip(before, after, strict=False), 1):
        if not _same(old, new, by_network):
            yield f"line {number}\n  - {old}\n  + {new}"


def _same(old: str, new: str, by_network: bool) -> bool:
    if old == new:
        return True
    numbers = [_NUMBER.findall(line) for line in (old, new)]
    return _NUMBER.split(old) == _NUMBER.split(new) and all(
        _near(a, b, by_network) for a, b in zip(*numbers, strict=True)
    )


def _near(old: str, new: str, by_network: bool) -> bool:
    """Whether two numbers are alike, and stand in the same place; with the spaces before them."""
    spaces = [len(number) - len(number.lstrip()) for number in (old, new)]
    decimals = [len(number.partition(".")[2].partition("e")[0]) for number in (old, new)]
    if len(old) != len(new) and (spaces[0] != spaces[1] or (spaces[0] > 1 and decimals[0] < 5)):
        return False
    a, b = float(old), float(new)
    if decimals[0] != decimals[1] and min(decimals) < 5:  # 0.25 and 0.24999999999999997
        allowed = ROUNDING * abs(a) if max(decimals) > 11 else -1
    elif not by_network:
        allowed = ROUNDING * abs(a) if decimals[0] > 4 else 0
    elif decimals[0]:
        allowed = max(POINTS * 10.0 ** (1 - decimals[0]), POINTS / 100, abs(a) / 100)
    else:
        allowed = abs(a) / 100 if abs(a) >= 1000 else 0
    return abs(a - b) <= allowed


def seen(path: Path, by_network: bool, measured: bool) -> str:
    """Return what a file holds, as far as it shall be the same for ever."""
    suffix = path.suffix.lower()
    if suffix in (".json", ".jsonl", ".toml", ".txt"):
        return path.read_text("utf-8")
    if suffix == ".html":
        return _Outline(path.read_text("utf-8"), charts=not measured).text
    if suffix == ".png":
        with Image.open(path) as image:
            return f"{image.mode} {_pixels(np.asarray(image), by_network)}\n"
    if suffix == ".tif":
        with rasterio.open(path) as file:
            place = f"{file.crs} {list(file.transform)[:6]}, nodata {file.nodata}"
            return f"{_pixels(file.read(), by_network)}\n{place}\n"
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return "".join(f"{k}: {v.dtype} {v.shape}\n" for k, v in sorted(arrays.items()))
    if suffix == ".tar":
        with tarfile.open(path) as shard:
            return "".join(f"{member.name}\n" for member in shard)
    if suffix == ".onnx":
        return _bundle(path)
    return ""


def _pixels(array: np.ndarray, by_network: bool) -> str:
    """The values: of each its share where a network decided them, or else a hash of all."""
    about = f"{array.dtype} {'x'.join(map(str, array.shape))}"
    if not by_network:
        return f"{about} sha256 {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"
    values, counts = np.unique(array, return_counts=True)
    shares = dict(zip(values.tolist(), (100 * counts / array.size).tolist(), strict=True))
    kept = [f"value {value} on {share:.1f} %" for value, share in shares.items() if share >= 0.1]
    return f"{about}: {', '.join(kept)}"


def _bundle(path: Path) -> str:
    """The inputs, outputs and metadata of a bundle."""
    import onnx

    model = onnx.load(path)
    out = io.StringIO()
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.tensor_type
        names = [d.dim_param or str(d.dim_value) for d in kind.shape.dim]
        sizes = ["<expression>" if "(" in name else name for name in names]  # of torch's making
        print(f"{value.name}: type {kind.elem_type}, {' '.join(sizes)}", file=out)
    for entry in sorted(model.metadata_props, key=lambda entry: entry.key):
        try:
            value = json.dumps(json.loads(entry.value), indent=1)
        except ValueError:
            value = entry.value
        print(f'"{entry.key}": {value}', file=out)
    return out.getvalue()


class _Outline(HTMLParser):
    """A page's tags, and its text, a line for each; without pictures' data and style sheets."""

    def __init__(self, page: str, charts: bool) -> None:
        super().__init__()
        self.text = ""
        self.left_out = ("style", "script") if charts else ("style", "script", "svg")
        self.within = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if self.within:
            return
        self.within = tag if tag in self.left_out else ""
        for name, value in attributes:
            value = (value or "").partition(",")[0] if name == "src" else value
            tag += f' {name}="{value}"'
        self.text += f"<{tag}>\n"

    def handle_endtag(self, tag: str) -> None:
        self.within = "" if tag == self.within else self.within

    def handle_data(self, data: str) -> None:
        if data.strip() and not self.within:
            self.text += " ".join(data.split()) + "\n"

"""Files with foreign objects: their weights are read, and nothing of the file runs."""

import argparse
import collections
import copyreg
import enum
import functools
import io
import pickle
import tarfile
import warnings
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from atrous.errors import InputError
from atrous.weights.convert import import_weights
from atrous.weights.importers.checkpoint import read_checkpoint
from atrous.weights.importers.stand_ins import load_with_stand_ins


class HistoryBuffer:
    def __init__(self):
        self.log = [1.0]


class Mode(enum.Enum):
    BEST = 1


class Config(dict):
    """As easydict and addict have them."""


class Wrapper(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.net = inner
        self.register_buffer("passing", torch.ones(2, 2), persistent=False)
        self.register_buffer("kept", torch.ones(2, dtype=torch.int64))
        self.callback = functools.partial(print, 1)


def toy():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


FOREIGN = {
    "namespace": argparse.Namespace(lr=0.1, path=Path("x")),
    "history": {"train/loss": HistoryBuffer()},
    "enum": {Mode.BEST: [Mode.BEST]},
    "path": Path("/x/y"),
    "containers": [collections.deque([1]), {1, 2}, frozenset([3]), collections.Counter("ab")],
    "default": collections.defaultdict(list, {1: [2]}),
    "partial": functools.partial(int, base=2),
    "config": Config(a=Config(b=1)),
    "values": [b"abc", 1j, slice(1, 2), range(3), 10**30, "\N{SNOWMAN}"],
    "function": len,
    "random": torch.get_rng_state(),
}


@pytest.mark.parametrize("is_archive", [True, False])
@pytest.mark.parametrize("kind", FOREIGN)
def test_weights_beside_foreign_objects_are_read(kind, is_archive, tmp_path):
    state, path = toy().state_dict(), tmp_path / "theirs.pth"
    content = {"model": state, "beside": FOREIGN[kind], "cause": HistoryBuffer()}
    torch.save(content, path, _use_new_zipfile_serialization=is_archive)
    found = read_checkpoint(path)
    assert found.key == "model"
    assert list(found.state) == list(state)
    assert all(torch.equal(found.state[name], state[name]) for name in state)


@pytest.mark.parametrize("is_archive", [True, False])
@pytest.mark.parametrize("wrap", [lambda net: net, Wrapper, nn.DataParallel])
def test_whole_networks_give_their_state_dict(wrap, is_archive, tmp_path):
    network, path = wrap(toy()), tmp_path / "theirs.pth"
    torch.save(network, path, _use_new_zipfile_serialization=is_archive)
    state, found = network.state_dict(), read_checkpoint(path).state
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("is_archive", [True, False])
@pytest.mark.parametrize(
    "kind", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8]
)
def test_views_and_types_are_kept(kind, is_archive, tmp_path):
    whole = (torch.arange(24).reshape(4, 6) % 5).to(kind)
    state = {"row": whole[1], "turned": whole.T, "part": nn.Parameter(whole[1:, 2:4], False)}
    path = tmp_path / "theirs.pth"
    content = {"model": state, "cause": HistoryBuffer()}
    torch.save(content, path, _use_new_zipfile_serialization=is_archive)
    found = read_checkpoint(path).state
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert all(found[name].dtype == kind for name in state)


# Pickles that would make a file named `sprung`, by each way there is to get at a function.
CALL = b"(S'sprung'\nS'w'\nt"
SLOTS = {
    "REDUCE": b"cbuiltins\nopen\n" + CALL + b"R.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x08builtins\x8c\x04open\x93" + CALL + b"R.",
    "dotted name": b"\x80\x04\x8c\x07pathlib\x8c\x0aPath.touch\x93(S'sprung'\ntR.",
    "INST": b"(S'sprung'\nS'w'\nibuiltins\nopen\n.",
    "OBJ": b"(cbuiltins\nopen\nS'sprung'\nS'w'\no.",
    "NEWOBJ": b"\x80\x02cio\nFileIO\n" + CALL + b"\x81.",
    "NEWOBJ_EX": b"\x80\x04cio\nFileIO\n" + CALL + b"}\x92.",
    "BUILD": b"\x80\x02cbuiltins\nobject\n)\x81}S'__setstate__'\ncbuiltins\nopen\nsbS'sprung'\nb.",
    "BUILD of slots": b"\x80\x02cargparse\nNamespace\n)\x81N}S'__class__'\ncio\nFileIO\ns\x86b.",
    "BUILD of a maker": b"ctorch._utils\n_rebuild_tensor_v2\nN}S'__code__'\nI1\ns\x86b.",
    "BUILD of a class": b"cbuiltins\nset\nN}S'x'\nI1\ns\x86b.",
    "EXT1": b"\x80\x02\x82\xf0" + CALL + b"R.",
    "PERSID": b"Pos.system\n.",
    "BINPERSID": b"((S'module'\ncbuiltins\nopen\nS'x.py'\nS'x'\ntQ" + CALL + b"R.",
    "storage": b"((S'storage'\ncbuiltins\nopen\nS'sprung'\nS'w'\nI1\ntQ.",
    "getattr": b"cbuiltins\ngetattr\n(cbuiltins\nopen\nS'__call__'\ntR" + CALL + b"R.",
    "eval": b"cbuiltins\neval\n(S\"open('sprung', 'w')\"\ntR.",
    "codec": b"c_codecs\nencode\n(S'x'\nS'sprung'\ntR.",
    "maker": b"ctorch._utils\n_rebuild_parameter\n(cbuiltins\nopen\nI0\nNtR.",
    "subclass": b"ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nopen\nN" + CALL + b"NtR.",
    "set": b"\x80\x02cbuiltins\nset\n(cio\nFileIO\n" + CALL + b"R\x85tR.",
}


def write_archive(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3")


def write_legacy(path: Path, data: bytes) -> None:
    magic, version, system = (pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {}))
    path.write_bytes(magic + version + system + data + pickle.dumps([], 2))


@pytest.mark.parametrize("write", [write_archive, write_legacy])
@pytest.mark.parametrize("slot", SLOTS)
def test_nothing_of_a_file_runs(slot, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "theirs.pth"
    write(path, SLOTS[slot])
    copyreg.add_extension("builtins", "open", 0xF0)
    try:
        with pytest.raises(InputError) as caught:
            import_weights(path)
    finally:
        copyreg.remove_extension("builtins", "open", 0xF0)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.pth"]


@pytest.mark.parametrize("slot", ["REDUCE", "STACK_GLOBAL", "INST", "OBJ", "EXT1"])
def test_the_traps_would_spring(slot, tmp_path, monkeypatch):
    """With Python's own unpickler they make the file: the test above can fail."""
    monkeypatch.chdir(tmp_path)
    copyreg.add_extension("builtins", "open", 0xF0)
    try:
        pickle._Unpickler(io.BytesIO(SLOTS[slot])).load().close()
    finally:
        copyreg.remove_extension("builtins", "open", 0xF0)
        copyreg._extension_cache.clear()
    assert (tmp_path / "sprung").exists()


def test_the_makers_stay_as_they_are(tmp_path):
    for slot in ("BUILD of a maker", "BUILD of a class"):
        write_archive(tmp_path / "theirs.pth", SLOTS[slot])
        with pytest.raises(pickle.UnpicklingError, match="a state for what has none"):
            load_with_stand_ins(tmp_path / "theirs.pth")


def test_a_module_within_itself_is_no_network(tmp_path):
    network = nn.Sequential(nn.Linear(1, 1))
    network.add_module("self", network)
    network.__dict__["cause"] = HistoryBuffer()
    torch.save(network, tmp_path / "theirs.pth")
    with pytest.raises(InputError, match="holds no weights by name"):
        read_checkpoint(tmp_path / "theirs.pth")


@pytest.mark.parametrize("state", [{}, {"_modules": 3}, {"_parameters": {}, "_modules": {"a": 1}}])
def test_what_only_looks_like_a_network_is_none(state, tmp_path):
    like = HistoryBuffer()
    like.__dict__ = {"_buffers": {}, "_non_persistent_buffers_set": 3, **state}
    torch.save(like, tmp_path / "theirs.pth")
    with pytest.raises(InputError, match="holds no weights by name"):
        read_checkpoint(tmp_path / "theirs.pth")


def test_other_containers_are_refused(tmp_path):
    path = tmp_path / "theirs.pth"
    with tarfile.open(path, "w") as archive:  # torch's, before 0.1.10
        for name, content in {"storages": b"x", "tensors": b"x", "pickle": SLOTS["eval"]}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(InputError, match=r"no file of torch\.save"):
        read_checkpoint(path)
    for network in (nn.Linear(2, 2), nn.Sequential(*[nn.ReLU()] * 200)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is old
            torch.jit.save(torch.jit.script(network), path)  # the second's code is compressed
        with pytest.raises(InputError, match="a TorchScript program; save its weights"):
            read_checkpoint(path)


def test_claims_beyond_the_file_are_refused(tmp_path):
    huge = b"((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI1000000000000\nNtQ."
    write_legacy(tmp_path / "theirs.pth", huge)
    with pytest.raises(ValueError, match="larger than the file"):
        load_with_stand_ins(tmp_path / "theirs.pth")
    write_archive(tmp_path / "theirs.pth", b"I1\nr\xff\xff\xff\x7f.")  # a memo of 2^31 entries
    assert load_with_stand_ins(tmp_path / "theirs.pth") == 1


@pytest.fixture(scope="module")
def files():
    """One small network, as torch.save writes it: four kinds of bytes."""
    state = smp.Unet("resnet18", encoder_weights=None, classes=2).state_dict()
    small = {name: tensor for name, tensor in state.items() if tensor.numel() < 100}
    written = []
    for content in ({"model": small}, {"model": small, "a": HistoryBuffer()}):
        for is_archive in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=is_archive)
            written.append(buffer.getvalue())
    return written


@pytest.mark.filterwarnings("ignore")
@given(
    which=st.integers(0, 3),
    changes=st.lists(
        st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=4)), max_size=4
    ),
    end=st.floats(0, 1),
    is_cut=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_a_damaged_file_ends_in_weights_or_in_one_line(files, which, changes, end, is_cut):
    content = bytearray(files[which])
    for place, new in changes:
        place %= len(content)
        content[place : place + len(new)] = new
    with TemporaryDirectory() as folder:
        path = Path(folder) / "theirs.pth"
        path.write_bytes(content[: int(end * len(content))] if is_cut else content)
        try:
            assert read_checkpoint(path).state
        except InputError as error:
            assert "\n" not in str(error)

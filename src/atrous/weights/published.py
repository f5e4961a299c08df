"""Weights that other projects publish: where they are, what they know, and how they score.

The table needs no torch. Addresses, checksums and scores are those that the projects themselves
give: torchvision in its package, the others in their repositories. Scores are as published, by each
project's own protocol; nothing here has been measured by us.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from atrous.data.fetch.dataset import folder_lock
from atrous.data.fetch.download import discard, download, remote_size
from atrous.data.schema import builtin
from atrous.data.train_ids import taxonomy_of
from atrous.errors import InputError
from atrous.files import no_such_file
from atrous.progress import Notify, Track
from atrous.run import PublishedScore, RunData, has_run

PATIENCE = 5.0
"""Seconds until a server that does not answer counts as out of reach."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A checkpoint that a project publishes."""

    name: str
    """PROJECT/MODEL."""
    url: str
    sha256: str = ""
    """The first digits of the file's checksum, if the project publishes them."""
    data: str
    """The built-in set whose classes it knows."""
    miou: float
    """As published, 0 to 1."""
    protocol: str
    """What that was measured on, and how."""
    licence: str
    """Of the project."""
    by_hand: bool = False
    """Whether the address is a page for people."""

    @property
    def layout(self) -> str:
        """The project, and its layout in `atrous.weights.importers`."""
        return self.name.partition("/")[0]


def _torchvision(model: str, digits: str, percent: float) -> Published:
    return Published(
        name=f"torchvision/{model}",
        url=f"https://download.pytorch.org/models/{model}{_COCO.get(model, '_coco')}-{digits}.pth",
        sha256=digits,
        data="voc2012",
        miou=percent / 100,
        protocol="COCO val2017 with VOC's classes",
        licence="BSD-3-Clause",
    )


_COCO = {"deeplabv3_mobilenet_v3_large": ""}
"""What stands before the checksum in a file's name, if not "_coco"."""


def _kazuto(data: str, file: str, percent: float, protocol: str) -> Published:
    return Published(
        name=f"kazuto1011/deeplabv2_resnet101_{file.split('-')[0]}",
        url="https://github.com/kazuto1011/deeplab-pytorch/releases/download/v1.0/"
        f"deeplabv2_resnet101_msc-{file}.pth",
        data=data,
        miou=percent / 100,
        protocol=f"{protocol}, without CRF",
        licence="MIT",
    )


def _vainf(model: str, key: str, data: str, percent: float) -> Published:
    """Its README links to Dropbox's pages, whose files dl=1 gives."""
    short = "voc" if data == "voc2012" else data
    page = "https://drive.google.com/file/d/1t7TC8mxQaFECt4jutdq_NMnWxdm6B-Nb/view"
    return Published(
        name=f"vainf/{model}_{short}",
        url=f"https://www.dropbox.com/s/{key}/best_{model}_{short}_os16.pth?dl=1" if key else page,
        data=data,
        miou=percent / 100,
        protocol="val, 513x513 centre crops" if data == "voc2012" else "val, 1024x2048",
        licence="MIT",
        by_hand=not key,
    )


def _mmseg(model: str, depth: str, data: str, stamp: str, percent: float) -> Published:
    configuration = f"{model}_{depth}-d8_{_SCHEDULES[data]}"
    folder = f"https://download.openmmlab.com/mmsegmentation/v0.5/{model}/{configuration}"
    side = "1024x2048" if data == "cityscapes" else "shorter side 512"
    return Published(
        name=f"mmseg/{model}_{depth}_{data}",
        url=f"{folder}/{configuration}_{stamp}.pth",
        sha256=stamp.partition("-")[2],
        data=data,
        miou=percent / 100,
        protocol=f"val, {side}",
        licence="Apache-2.0",
    )


_SCHEDULES = {
    "cocostuff": "512x512_4x4_320k_coco-stuff164k",
    "cocostuff10k": "512x512_4x4_40k_coco-stuff10k",
    "ade20k": "512x512_160k_ade20k",
    "cityscapes": "512x1024_80k_cityscapes",
    "voc2012": "512x512_40k_voc12aug",
}
"""Of mmsegmentation's configurations: the longest one on each set."""

_ALL = (
    _torchvision("deeplabv3_resnet50", "cd0a2569", 66.4),
    _torchvision("deeplabv3_resnet101", "586e9e4e", 67.4),
    _torchvision("deeplabv3_mobilenet_v3_large", "fc3c493d", 60.3),
    _torchvision("fcn_resnet50", "1167a1af", 60.5),
    _torchvision("fcn_resnet101", "7ecb50ca", 63.7),
    _kazuto("cocostuff182", "cocostuff164k-100000", 39.1, "val2017"),
    _kazuto("cocostuff182", "cocostuff10k-20000", 34.8, "10k val, 513x513"),
    _kazuto("voc2012", "vocaug-20000", 76.65, "val"),
    _vainf("deeplabv3_mobilenet", "uhksxwfcim3nkpo", "voc2012", 70.1),
    _vainf("deeplabv3_resnet50", "3eag5ojccwiexkq", "voc2012", 76.9),
    _vainf("deeplabv3_resnet101", "vtenndnsrnh4068", "voc2012", 77.3),
    _vainf("deeplabv3plus_mobilenet", "0idrhwz6opaj7q4", "voc2012", 71.1),
    _vainf("deeplabv3plus_resnet50", "dgxyd3jkyz24voa", "voc2012", 77.2),
    _vainf("deeplabv3plus_resnet101", "bm3hxe7wmakaqc5", "voc2012", 78.3),
    _vainf("deeplabv3plus_mobilenet", "753ojyvsh3vdjol", "cityscapes", 72.1),
    _vainf("deeplabv3plus_resnet101", "", "cityscapes", 76.2),
    _mmseg("deeplabv3", "r50", "cocostuff", "20210709_155403-51b21115", 41.37),
    _mmseg("deeplabv3", "r101", "cocostuff", "20210709_155402-3cbca14d", 42.61),
    _mmseg("deeplabv3", "r50", "cocostuff10k", "20210821_043305-dc76f3ff", 35.73),
    _mmseg("deeplabv3", "r101", "cocostuff10k", "20210821_043305-636cb433", 37.81),
    _mmseg("deeplabv3", "r50", "ade20k", "20200615_123227-5d0ee427", 42.66),
    _mmseg("deeplabv3", "r101", "ade20k", "20200615_105816-b1f72b3b", 45.0),
    _mmseg("deeplabv3", "r50", "voc2012", "20200613_161546-2ae96e7e", 77.68),
    _mmseg("deeplabv3", "r101", "voc2012", "20200613_161432-0017d784", 77.92),
    _mmseg("deeplabv3plus", "r50", "ade20k", "20200615_124504-6135c7e0", 43.95),
    _mmseg("deeplabv3plus", "r101", "ade20k", "20200615_123232-38ed86bb", 45.47),
    _mmseg("deeplabv3plus", "r50", "voc2012", "20200613_161759-e1b43aa9", 76.81),
    _mmseg("deeplabv3plus", "r101", "voc2012", "20200613_205333-faf03387", 78.62),
    _mmseg("pspnet", "r50", "cocostuff", "20210707_152004-be9610cc", 40.53),
    _mmseg("pspnet", "r101", "cocostuff", "20210707_152004-72220c60", 41.95),
    _mmseg("pspnet", "r50", "cocostuff10k", "20210821_030857-92e2902b", 36.33),
    _mmseg("pspnet", "r101", "cocostuff10k", "20210821_014022-831aec95", 37.76),
    _mmseg("pspnet", "r50", "ade20k", "20200615_184358-1890b0bd", 42.48),
    _mmseg("pspnet", "r101", "ade20k", "20200615_100650-967c316f", 44.39),
    _mmseg("pspnet", "r50", "voc2012", "20200613_161222-ae9c1b8c", 77.29),
    _mmseg("pspnet", "r101", "voc2012", "20200613_161222-bc933b18", 78.52),
    _mmseg("fcn", "r50", "ade20k", "20200615_100713-4edbc3b4", 36.1),
    _mmseg("fcn", "r101", "ade20k", "20200615_105816-fd192bd5", 39.91),
    _mmseg("fcn", "r50", "voc2012", "20200613_161222-5e2dbf40", 66.97),
    _mmseg("fcn", "r101", "voc2012", "20200613_161240-4c8bcefd", 69.91),
    _mmseg("deeplabv3", "r50", "cityscapes", "20200606_113404-b92cfdd4", 79.32),
    _mmseg("deeplabv3", "r101", "cityscapes", "20200606_113503-9e428899", 80.2),
    _mmseg("deeplabv3plus", "r50", "cityscapes", "20200606_114049-f9fb496d", 80.09),
    _mmseg("deeplabv3plus", "r101", "cityscapes", "20200606_114143-068fcfe9", 80.97),
    _mmseg("pspnet", "r50", "cityscapes", "20200606_112131-2376f12b", 78.55),
    _mmseg("pspnet", "r101", "cityscapes", "20200606_112211-e1e1100f", 79.76),
    _mmseg("fcn", "r50", "cityscapes", "20200606_113019-03aa804d", 73.61),
    _mmseg("fcn", "r101", "cityscapes", "20200606_113038-3fb937eb", 75.13),
)
PUBLISHED = {entry.name: entry for entry in _ALL}


def no_such_weights(name: str) -> InputError:
    """Return the error for what is neither a file nor one of `PUBLISHED`; it offers the nearest."""
    near = get_close_matches(name, PUBLISHED, n=1, cutoff=0.8)
    if not near:
        return no_such_file(Path(name))
    return InputError(f"{name}: no such file or published weights. Did you mean {near[0]}?")


def fetch_run(published: Published, out: Path, track: Track, notify: Notify) -> None:
    """Download a checkpoint, verify and convert it; `out` is a whole run folder, or is not there.

    Killed at any moment, the same call goes on from there.

    Args:
        published: an entry of `PUBLISHED`.
        out: the run folder, which must not be there.
        track: told the bytes of each step.
        notify: told of breaks.

    Raises:
        InputError: it cannot be downloaded, is not what was published, or does not fit.
        ImportError: torch is not installed; nothing is downloaded.
        OSError: the disk is full.
    """
    if published.by_hand:
        raise InputError(
            f"{published.name}: a page for people; fetch it by hand from {published.url}, then: "
            f"atrous convert FILE --layout {published.layout} --data {published.data}"
        )
    size = _asked(published)
    from atrous.weights.convert import import_weights, write_run  # slow: not when offline

    part = out.with_name(f".{out.name}.pth.part")
    unfinished = out.with_name(f".{out.name}.tmp")
    data = builtin(published.data)
    taxonomy = taxonomy_of(data.labels, data.name)
    about = RunData(
        name=data.name,
        data=published.data,
        licence=f"{published.licence}; data: {data.licence}",
        source=published.url,
        published=PublishedScore(miou=published.miou, protocol=published.protocol),
    )
    with folder_lock(out.parent):
        if has_run(out):  # another process was first
            return
        _download(published, part, size, track, notify)
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        try:
            imported = import_weights(part, published.layout)
            write_run(imported, taxonomy, unfinished, about)
        except InputError as error:
            discard(part)  # or it would be taken up again, and never fit
            reason = str(error).removeprefix(f"{part}: ")
            raise InputError(f"{published.name}: what came is removed: {reason}") from None
        unfinished.replace(out)
        discard(part)


def _asked(published: Published) -> int | None:
    """The bytes of the file, if its server says.

    Raises:
        InputError: the server is out of reach, or does not have it.
    """
    try:
        return remote_size(published.url, None, PATIENCE)
    except InputError as error:
        reason = str(error).partition("; ")[0]
        raise InputError(f"{published.name}: cannot be fetched ({reason}); go online") from None


def _download(
    published: Published, part: Path, size: int | None, track: Track, notify: Notify
) -> None:
    """Bring the file to `part` and verify it.

    Raises:
        InputError: that cannot be done; what differs from the published file is removed.
    """
    try:
        download(published.url, part, size, track, notify)
    except InputError as error:
        reason = str(error).partition("; ")[0]
        raise InputError(
            f"{published.name}: {reason}; give the same command again, it goes on from there"
        ) from None
    with part.open("rb") as file:
        digits = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if not digits.startswith(published.sha256):
        discard(part)
        raise InputError(
            f"{published.name}: what came differs from the published file (sha256 {digits[:8]}, "
            f"not {published.sha256}), and is removed; give the same command again"
        )

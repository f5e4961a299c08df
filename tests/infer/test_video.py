"""Videos made here, through a bundle whose labels are known beforehand, and back."""

import json
import struct
import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atrous.errors import InputError
from atrous.infer.segmenter import Segmenter, load
from atrous.infer.video.frames import Video, VideoWriter, color_frame, is_video, label_frame
from atrous.infer.video.segment import segment_video

COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


def picture(index: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Red at the top, and below it one colour at the left and one at the right."""
    image = np.zeros((*size, 3), np.uint8)
    image[: size[0] // 2] = COLORS[0]
    image[size[0] // 2 :, : size[1] // 2] = COLORS[index % 3]
    image[size[0] // 2 :, size[1] // 2 :] = COLORS[1]
    return image


def write_video(
    path: Path,
    images: Sequence[np.ndarray],
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    pixel_format: str = "yuv444p",
    matrix: int = 5,
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "10"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base
        stream.codec_context.colorspace = matrix
        for image, stamp in zip(images, pts or range(len(images)), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format=pixel_format, dst_colorspace=matrix)
            frame.pts, frame.time_base = stamp, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn(path: Path, to: Path) -> Path:
    """Copy an MP4 with the matrix in its track header that turns it clockwise by 90 degrees."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    matrix = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *matrix)
    to.write_bytes(content)
    return to


@pytest.fixture
def segmenter(tiny_bundle: Path) -> Segmenter:
    return load(tiny_bundle, threads=2, calls=2)


def frames_of(path: Path, format: str = "rgb24") -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format=format) for frame in container.decode(video=0)]


def times_of(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


@pytest.mark.parametrize("matrix", [1, 5], ids=["bt709", "bt601"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_are_the_pictures_in_srgb(tmp_path: Path, suffix: str, matrix: int) -> None:
    images = [picture(index) for index in range(5)]
    path = write_video(tmp_path / f"clip.{suffix}", images, matrix=matrix)
    with Video(path) as video:
        frames = list(video)
    assert (video.live, video.dropped, video.has_audio) == (False, 0, False)
    assert [frame.time for frame in frames] == [Fraction(i, 25) for i in range(5)]
    for frame, image in zip(frames, images, strict=True):
        assert frame.image.dtype == np.uint8
        assert np.abs(frame.image.astype(int) - image).mean() < 3


def test_a_turned_video_stands_upright(tmp_path: Path) -> None:
    path = turn(write_video(tmp_path / "clip.mp4", [picture(2)]), tmp_path / "turned.mp4")
    with Video(path) as video:
        (frame,) = list(video)
    upright = np.rot90(picture(2), -1)
    assert frame.image.shape == upright.shape == (64, 48, 3)
    assert np.abs(frame.image.astype(int) - upright).mean() < 3


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    gaps=st.lists(st.integers(1, 5000), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_labels_and_times_come_back_as_they_were(
    tmp_path: Path, size: tuple[int, int], gaps: list[int], seed: int
) -> None:
    """All values of a byte, odd sizes, any rate; Matroska's times are rounded to 1/1000 s."""
    source = write_video(tmp_path / "clip.mkv", [picture(0)])
    labels = np.random.default_rng(seed).integers(0, 256, (len(gaps), *size), dtype=np.uint8)
    times = [Fraction(int(t), 1000) for t in np.cumsum(gaps)]
    with Video(source) as video:
        writer = VideoWriter(tmp_path / "labels.mkv", video, "ffv1", {"level": "3"})
        for label, moment in zip(labels, times, strict=True):
            writer.add(label_frame(label), moment)
        writer.close()
    assert np.array_equal(frames_of(tmp_path / "labels.mkv", "gray"), labels)
    assert times_of(tmp_path / "labels.mkv") == times


def test_a_video_becomes_three_files(segmenter: Segmenter, tmp_path: Path) -> None:
    pts = [0, 1, 3, 4, 9, 10]
    images = [picture(index, (33, 45)) for index in range(6)]
    path = write_video(tmp_path / "clip.mkv", images, pts)
    with Video(path) as video:
        result, files = segment_video(segmenter, video, tmp_path / "out" / "clip")
    assert [file.name for file in files] == ["clip.overlay.mp4", "clip.labels.mkv", "clip.json"]
    assert sorted((tmp_path / "out").iterdir()) == sorted(files)
    times = [Fraction(stamp, 25) for stamp in pts]
    assert result.times == times_of(files[0]) == times_of(files[1]) == times
    labels = frames_of(files[1], "gray")
    for label, image in zip(labels, images, strict=True):
        assert label.shape == (33, 45)
        assert (label == image.argmax(2)).mean() > 0.85  # blocks of 4x4 pixels blur the borders
    overlay = frames_of(files[0])[2]
    assert overlay.shape[0] % 2 == overlay.shape[1] % 2 == 0
    assert np.abs(overlay[4:12, 4:40].astype(int) - COLORS[0]).mean() < 8
    document = json.loads(files[2].read_text("utf-8"))
    assert (document["frames"], document["size"]) == (6, [33, 45])
    assert document["times"] == [stamp / 25 for stamp in pts]
    red = [float((label == 0).mean()) for label in labels]
    assert document["coverage_of_frames"]["red"] == pytest.approx(red, abs=1e-4)
    assert document["coverage"]["red"] == pytest.approx(np.mean(red), abs=1e-5)


def test_python_sees_each_frame(segmenter: Segmenter, tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", [picture(index) for index in range(9)])
    results = list(segmenter.video(path))
    assert [result.time for result in results] == [Fraction(i, 25) for i in range(9)]
    assert (results[2].labels[40:, :28] == 2).all()


def test_overlay_colors_are_those_that_a_player_shows(tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.mp4", [picture(0)])
    image = np.full((32, 32, 3), (200, 30, 90), np.uint8)
    with Video(source) as video:
        writer = VideoWriter(tmp_path / "a.mp4", video, "libx264", {"crf": "10"})
        writer.add(color_frame(image), Fraction(0))
        writer.close()
    with Video(tmp_path / "a.mp4") as video:  # reads the matrix that the file names
        (frame,) = list(video)
    assert np.abs(frame.image.astype(int) - image).max() < 6


def test_a_cut_off_file_gives_what_it_holds(segmenter: Segmenter, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(20)]
    whole = write_video(tmp_path / "whole.avi", images, codec="mjpeg", pixel_format="yuvj444p")
    content = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    with Video(tmp_path / "cut.avi") as video:
        result, files = segment_video(segmenter, video, tmp_path / "cut")
    assert 5 < len(result.times) < 15
    assert len(frames_of(files[1], "gray")) == len(result.times)


def test_a_change_of_size_ends_the_video(segmenter: Segmenter, tmp_path: Path) -> None:
    parts = [
        write_video(
            tmp_path / f"{side}.mjpeg",
            [picture(0, (side, side))] * 4,
            codec="mjpeg",
            pixel_format="yuvj444p",
        )
        for side in (32, 48)
    ]
    path = tmp_path / "both.mjpeg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Video(path) as video:
        result, files = segment_video(segmenter, video, tmp_path / "both")
    assert result.problem is not None
    assert result.problem.startswith(f"{path}: its frames change from 32x32 to 48x48 after 0.16 s")
    assert len(result.times) == len(frames_of(files[1], "gray")) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.mp4", "no such file"),
        ("garbage.mp4", "cannot be opened as a video"),
        ("empty.mp4", "cannot be opened as a video"),
        ("cut.mp4", "cannot be opened as a video"),
        ("sound.mkv", "holds no video, only audio"),
        ("list.mp4", "cannot be opened as a video"),
    ],
)
def test_what_is_no_video_is_one_line(tmp_path: Path, name: str, message: str) -> None:
    whole = write_video(tmp_path / "whole.mp4", [picture(0)] * 9).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index is at the end
    (tmp_path / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_sound(tmp_path / "sound.mkv")
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"
    (tmp_path / "list.mp4").write_text(playlist)  # a file must not open an address
    with pytest.raises(InputError) as caught:
        list(Video(tmp_path / name))
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_bytes_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "clip.mkv"
    if not path.exists():
        write_video(path, [picture(index) for index in range(6)])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "bad.mkv").write_bytes(content)
    try:
        with Video(tmp_path / "bad.mkv") as video:
            for frame in video:
                assert frame.image.shape[2] == 3
    except InputError as error:
        assert "\n" not in str(error)


def test_frames_that_cannot_be_encoded(segmenter: Segmenter, tmp_path: Path) -> None:
    small = [picture(0, (2, 1))]
    path = write_video(tmp_path / "clip.mkv", small, codec="mjpeg", pixel_format="yuvj444p")
    with (
        Video(path) as video,
        pytest.raises(InputError, match=f"{path}: ffv1 cannot encode frames of 1x2"),
    ):
        segment_video(segmenter, video, tmp_path / "out" / "clip")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_frame_before_the_end_leaves_no_file(segmenter: Segmenter, tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", [picture(0)] * 3)
    with Video(path) as video:
        video.stop()
        with pytest.raises(InputError, match="stopped before its first frame"):
            segment_video(segmenter, video, tmp_path / "out" / "clip")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_taken_for_a_video() -> None:
    for source in ("a.mp4", "A.MOV", "/dev/video0", "rtsp://cam/1", "http://cam:80/stream"):
        assert is_video(source)
    for source in ("a.jpg", "folder", "/dev/null", "mp4", "c:\\photos\\a.png"):
        assert not is_video(source)


def test_a_live_source_gives_the_newest_frame(tmp_path: Path) -> None:
    """A file, read as if it were live, by somebody slow."""
    path = write_video(tmp_path / "clip.mkv", [picture(index) for index in range(60)])
    with Video(path) as video:
        video.live = True
        frames = iter(video)
        first = next(frames)
        for thread in threading.enumerate():
            if thread.name == "live video":
                thread.join()  # the file ends meanwhile
        rest = list(frames)
    assert first.time < rest[-1].time == Fraction(59, 25)
    assert 1 + len(rest) + video.dropped == 60
    assert video.dropped > 0
    assert "live video" not in {thread.name for thread in threading.enumerate()}

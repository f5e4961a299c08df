"""`atrous segment` of videos and streams, as a person calls it."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from atrous.cli import main
from atrous.images.photos import write_image
from atrous.infer.video.frames import Video


def jpeg(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95)
    return stream.getvalue()


class Camera(BaseHTTPRequestHandler):
    """A network camera: /stream never ends, /short ends after five frames."""

    photo = b""
    stopped = threading.Event()
    damaged = threading.Event()
    """Set when a client has taken several frames of damage."""

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        kinds = {"/photo": "image/jpeg", "/page": "text/html"}
        self.send_response(404 if self.path == "/none" else 200)
        default = "multipart/x-mixed-replace; boundary=frame"
        self.send_header("Content-Type", kinds.get(self.path, default))
        self.end_headers()
        if self.path in kinds:
            self.wfile.write(self.photo if self.path == "/photo" else b"<html>hello</html>")
        elif self.path != "/none":
            self.send_frames(5 if self.path == "/short" else 10**6)

    def send_frames(self, count: int) -> None:
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(self.photo)}\r\n\r\n"
        for index in range(count):
            damaged = self.path == "/damage" and index >= 5
            photo = bytes(len(self.photo)) if damaged else self.photo
            try:
                self.wfile.write(head.encode() + photo + b"\r\n")
            except OSError:  # the client has seen enough
                return
            if damaged and index == 20:
                self.damaged.set()
            if self.stopped.wait(0.01):
                return
        self.wfile.write(b"--frame--\r\n")


@contextmanager
def camera(photo: np.ndarray) -> Iterator[str]:
    Camera.photo = jpeg(photo)
    Camera.stopped.clear()
    Camera.damaged.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        Camera.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def write_clip(path: Path, image: np.ndarray, count: int, sound: bool = False) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        audio = container.add_stream("mp2", rate=48000, layout="mono") if sound else None
        for _ in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
        if audio:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), "s16", "mono")
            frame.rate = 48000
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def frame_count(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def red() -> np.ndarray:
    """A photo (32, 40, 3) whose left 24 columns are red, and the others blue."""
    image = np.zeros((32, 40, 3), np.uint8)
    image[:, :24, 0] = 255
    image[:, 24:, 2] = 255
    return image


@pytest.fixture
def noise() -> np.ndarray:
    """A photo (240, 320, 3) that takes much room in a file."""
    return np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_video_and_a_photo(
    here: Path, tiny_bundle: Path, red: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(here / "clip.mkv", red, 20, sound=True)
    write_image(here / "clip.png", red)
    call = ["segment", "clip.mkv", "clip.png", "--model", str(tiny_bundle), "--out", "out"]
    assert main(call) == 0
    video = ["clip.json", "clip.labels.mkv", "clip.overlay.mp4"]
    photo = ["clip.png.json", "clip.png.labels.png", "clip.png.overlay.jpg"]
    assert names_in(here / "out") == sorted(video + photo)
    lines = capsys.readouterr().out.splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("clip.mkv  40x32  "))
    assert lines[head + 1].startswith("  red    60.0 %")
    assert "  20 frames, 25.0 a second, audio left out" in lines
    assert "wrote  out/clip.overlay.mp4  out/clip.labels.mkv  out/clip.json" in lines
    assert "2 of 2 photos segmented" in lines


def test_frames_and_json(
    here: Path, tiny_bundle: Path, red: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(here / "clip.mp4", red, 20)
    call = ["segment", "clip.mp4", "--model", str(tiny_bundle), "--frames", "7", "--json"]
    assert main(call) == 0
    document = json.loads(capsys.readouterr().out)
    (video,) = document["videos"]
    assert (video["frames"], video["dropped"], video["size"]) == (7, 0, [32, 40])
    assert video["coverage"]["red"] == pytest.approx(0.6, abs=0.01)
    assert [frame_count(Path(file)) for file in video["files"][:2]] == [7, 7]
    assert (document["images"], document["errors"]) == ([], [])


def test_a_camera_that_ends(here: Path, tiny_bundle: Path, red: np.ndarray) -> None:
    with camera(red) as url:
        assert main(["segment", f"{url}/short", "--model", str(tiny_bundle)]) == 0
    document = json.loads((here / "short.json").read_text("utf-8"))
    assert document["frames"] + document["dropped"] == 5
    assert document["coverage"]["red"] == pytest.approx(0.6, abs=0.01)
    assert frame_count(here / "short.labels.mkv") == document["frames"]


def test_a_camera_that_gives_only_damage_can_be_closed(noise: np.ndarray) -> None:
    with camera(noise) as url:
        video = Video(f"{url}/damage")
        next(iter(video))
        assert Camera.damaged.wait(300)  # the five frames are over
        closing = threading.Thread(target=video.close)
        closing.start()
        closing.join(300)
        assert not closing.is_alive()


@pytest.mark.slow
def test_ctrl_c_ends_a_camera_with_files_that_play(
    here: Path, tiny_bundle: Path, noise: np.ndarray
) -> None:
    with camera(noise) as url:
        command = [sys.executable, "-m", "atrous", "segment", f"{url}/stream", "--json"]
        command += ["--model", str(tiny_bundle)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for_data(here, process)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, b"")
    (video,) = json.loads(out)["videos"]
    assert names_in(here) == ["stream.json", "stream.labels.mkv", "stream.overlay.mp4"]
    assert frame_count(here / "stream.labels.mkv") == video["frames"] > 0
    assert frame_count(here / "stream.overlay.mp4") == video["frames"]


@pytest.mark.slow
def test_ctrl_c_ends_a_video_with_files_that_play(
    here: Path, tiny_bundle: Path, noise: np.ndarray
) -> None:
    write_clip(here / "clip.mkv", noise, 800)
    command = [sys.executable, "-m", "atrous", "segment", "clip.mkv", "--model", str(tiny_bundle)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_data(here, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (130, b"")
    assert 0 < frame_count(here / "clip.labels.mkv") < 800
    assert names_in(here) == ["clip.json", "clip.labels.mkv", "clip.mkv", "clip.overlay.mp4"]


def wait_for_data(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the overlay, under its temporary name, has a first part on disk."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        sizes = [path.stat().st_size for path in folder.glob(".*overlay*.mp4")]
        if any(sizes):
            return
        time.sleep(0.02)
    process.kill()
    raise AssertionError(process.communicate())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.mp4", "no such file. Check the name and the folder"),
        ("garbage.mp4", "cannot be opened as a video"),
        ("http://{}/none", "cannot be opened as a video"),
        ("http://{}/page", "cannot be opened as a video"),
        ("http://{}/photo", "a photo at an address; download it first, then give the file"),
        ("http://{}/photo.jpg", "an address; download it first, then give the file"),
        ("/dev/video77", "no such file"),
    ],
)
def test_mistakes_are_one_line(
    here: Path,
    tiny_bundle: Path,
    red: np.ndarray,
    source: str,
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (here / "garbage.mp4").write_bytes(os.urandom(4000))
    with camera(red) as url:
        source = source.format(url.removeprefix("http://"))
        assert main(["segment", source, "--model", str(tiny_bundle)]) == 2
    printed = capfd.readouterr().err
    assert printed.startswith(f"error: {source}: ")
    assert message in printed
    assert printed.count("\n") == 1
    assert names_in(here) == ["garbage.mp4"]


def without_pyav(video: str, bundle: Path) -> str:
    """Return what `atrous segment` says of a video where PyAV is missing."""
    script = "import sys; sys.modules['av'] = None; from atrous.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "segment", video, "--model", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    return done.stderr


def test_without_pyav_the_mend_is_named(here: Path, tiny_bundle: Path) -> None:
    (here / "clip.mp4").write_bytes(b"x")
    assert without_pyav("clip.mp4", tiny_bundle) == (
        'error: atrous segment needs av, which is not installed: pip install "atrous[video]"\n'
    )


def test_without_pyav_a_missing_video_is_a_missing_file(here: Path, tiny_bundle: Path) -> None:
    assert without_pyav("other.mp4", tiny_bundle) == (
        "error: other.mp4: no such file. Check the name and the folder\n"
    )

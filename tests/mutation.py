"""Files that were right, with a few bytes changed; and a limit on what reading them may take."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from atrous.errors import InputError

a_quarter = settings(
    max_examples=settings.default.max_examples // 4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""As many examples as the profile asks for, divided by 4: 25, or 2,000 with `thorough`."""

CPU_SECONDS = 5
"""Reading a small file takes milliseconds: more means that it hangs, on however busy a machine."""

_PIECES = [
    *(bytes([value]) for value in (0, 1, 9, 10, 32, 127, 128, 254, 255)),
    *(b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\xff\xd9", b"\xef\xbb\xbf"),
    *(b'"', b"'", b"{", b"}", b"[", b"]", b"[[[[[[[[", b",", b":", b"=", b"#", b"/", b"\\", b"../"),
    *(b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"9" * 30, b'"\\ud800"', b"{key}", b"\r\n"),
]


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with up to three pieces changed, taken out, doubled or put in, or cut short."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 1, 1, 2, 4, 16, 200]))
        piece = content[at : at + length]
        change = draw(
            st.sampled_from([b"", piece * 2]) | st.sampled_from(_PIECES) | st.binary(max_size=4)
        )
        content = content[:at] + change + content[at + length :]
    return (
        content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 9)) == 0 else content
    )


@contextmanager
def read_or_refused() -> Iterator[None]:
    """Check that the block ends well or in one line, and soon; counted in the processor's time."""

    def stop(*_: object) -> None:
        raise AssertionError(f"over {CPU_SECONDS} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    except InputError as error:
        assert len(str(error).splitlines()) == 1, str(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)

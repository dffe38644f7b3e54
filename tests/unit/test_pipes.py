"""Pipes: what one thread makes arrives at another, or its error does, and no thread is left."""

from __future__ import annotations

import errno
import gc
import io
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder.pipes import Line, Pushed, ReadAhead, WriteBehind
from larder.streams import CHUNK


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@given(st.lists(st.binary(max_size=50)), st.integers(1, 70))
def test_reading_ahead_gives_every_byte_in_order(pieces: list[bytes], size: int) -> None:
    with ReadAhead(iter(pieces)) as reader:
        found = []
        while data := reader.read(size):
            found.append(data)
        assert b"".join(found) == b"".join(pieces)
        assert reader.read(size) == b""


def test_reading_ahead_is_not_far_ahead() -> None:
    made: list[int] = []
    third = threading.Event()

    def pieces() -> Iterator[bytes]:
        for number in range(100):
            made.append(number)
            if number == 2:
                third.set()
            yield b"x"

    with ReadAhead(pieces(), depth=2) as reader:
        # The third piece is made, and waits for room in the line; the fourth is not begun.
        assert third.wait(10)
        assert made == [0, 1, 2]
        assert reader.read(1) == b"x"
    assert len(made) <= 5


def test_an_error_comes_after_what_was_before_it_and_stays() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"good"
        raise ValueError("damaged")

    with ReadAhead(pieces()) as reader:
        assert reader.read1(10) == b"good"
        for _ in range(3):
            with pytest.raises(ValueError, match="damaged"):
                reader.read(10)


def test_reading_gives_what_was_asked_for_wherever_the_pieces_end() -> None:
    with ReadAhead(iter([b"abc", b"defg", b"", b"h", b"ijk"])) as reader:
        assert reader.read1(2) == b"ab"
        assert reader.read1() == b"c"
        assert reader.read(0) == b""
        assert reader.read(6) == b"defghi"
        into = bytearray(1)
        assert (reader.readinto(into), into) == (1, b"j")
        assert reader.read() == b"k"
        assert reader.read(5) == reader.read1(5) == b""


def test_a_piece_is_given_as_it_was_put() -> None:
    piece = bytes(CHUNK)
    with ReadAhead(iter([piece, piece])) as reader:
        assert reader.read1(CHUNK) is piece
        assert reader.read(CHUNK) is piece


def close(reader: ReadAhead) -> None:
    reader.close()
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


@pytest.mark.parametrize("leave", [close, id], ids=["closed", "let go of"])
def test_leaving_early_ends_the_thread_and_the_iterator(leave: Callable[[ReadAhead], object]) -> None:
    ended = []

    def pieces() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 10
        finally:
            ended.append(True)

    reader = ReadAhead(pieces())
    assert reader.read(5) == b"x" * 5
    leave(reader)
    del reader
    gc.collect()
    assert ended == [True]


def test_what_is_pushed_is_read_and_its_error_after_it() -> None:
    def work(line: Line) -> None:
        assert line.put(b"one ")
        assert line.put(b"two")
        raise ValueError("damaged")

    with Pushed(work) as reader:
        assert reader.read(4) + reader.read1(4) == b"one two"
        with pytest.raises(ValueError, match="damaged"):
            reader.read(1)


def test_whoever_pushes_is_told_that_nobody_reads() -> None:
    wanted = []

    def work(line: Line) -> None:
        while line.put(b"x"):
            pass
        wanted.append(False)

    with Pushed(work) as reader:
        assert reader.read(1) == b"x"
    assert wanted == [False]


@given(st.lists(st.binary(max_size=50)))
def test_writing_behind_takes_every_byte_in_order(pieces: list[bytes]) -> None:
    taken = io.BytesIO()

    def work(line: Line) -> None:
        for piece in iter(line.take, b""):
            taken.write(piece)

    with WriteBehind(work) as writer:
        assert [writer.write(piece) for piece in pieces] == [len(piece) for piece in pieces]
    assert taken.getvalue() == b"".join(pieces)


def test_what_is_written_may_be_changed_afterwards() -> None:
    taken = io.BytesIO()

    def work(line: Line) -> None:
        for piece in iter(line.take, b""):
            taken.write(piece)

    buffer = bytearray(CHUNK)
    with WriteBehind(work) as writer:
        for number in range(1, 6):
            buffer[:] = bytes([number]) * CHUNK
            writer.write(buffer)
            writer.write(memoryview(buffer)[:10].cast("B"))
    assert taken.getvalue() == b"".join(bytes([number]) * (CHUNK + 10) for number in range(1, 6))


def test_writing_is_not_far_ahead() -> None:
    begin, written = threading.Event(), []

    def work(line: Line) -> None:
        begin.wait(10)
        for _ in iter(line.take, b""):
            pass

    def write() -> None:
        for number in range(20):
            writer.write(bytes(CHUNK))
            written.append(number)

    writer = WriteBehind(work, depth=2)
    other = threading.Thread(target=write)
    other.start()
    other.join(0.2)
    assert len(written) <= 2
    begin.set()
    other.join()
    writer.close()
    assert len(written) == 20


def test_the_error_of_whoever_takes_is_raised_to_the_writer_and_stays() -> None:
    def work(line: Line) -> None:
        line.take()
        raise OSError(errno.ENOSPC, "No space left on device")

    def write_much() -> None:
        for _ in range(100):
            writer.write(bytes(CHUNK))

    writer = WriteBehind(work)
    with pytest.raises(OSError, match="No space left"):
        write_much()
    with pytest.raises(OSError, match="No space left"):
        writer.write(bytes(CHUNK))
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    assert writer.closed
    writer.close()


def test_an_error_at_the_very_end_is_raised_by_the_close() -> None:
    def work(line: Line) -> None:
        for _ in iter(line.take, b""):
            pass
        raise ValueError("damaged")

    writer = WriteBehind(work)
    writer.write(b"x")
    with pytest.raises(ValueError, match="damaged"):
        writer.close()


def test_a_writer_that_is_let_go_of_leaves_no_thread() -> None:
    ended = []

    def work(line: Line) -> None:
        while line.take():
            pass
        ended.append(True)

    writer = WriteBehind(work)
    writer.write(b"x")
    del writer
    gc.collect()
    assert ended == [True]

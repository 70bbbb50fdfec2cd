"""
Small films without an encoder: H.264 and MP4 written bit by bit.

The video stream is real and plays: baseline profile, two key frames whose
macroblocks carry their samples as they are (``I_PCM``, ITU-T H.264, 7.3.5), and
between them frames that repeat the last one (skipped macroblocks, some ten
bytes each). So a film of any duration is a few kilobytes, at the price of its
own frames being small: they are coded with a short side of 36 pixels, and the
track header asks the player to show them at the nominal size (720p and so on).
There is no sound track, also for the types that always make sound.

The boxes are those of ISO/IEC 14496-12 and -15 in the order that lets a player
start before the end: ``ftyp``, ``moov``, ``mdat``.

A film of a size that is real is made the other way round: its frames are coded
as large as its bytes allow, up to the size at which it is shown, and as many of
them are key frames as there are bytes for; a ``free`` box at the end makes up
the rest. It is written one key frame at a time, whenever somebody reads it, so
hundreds of megabytes cost the memory of one frame.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FRAMES_PER_SECOND = 24
"""Source: the H3 types are "fixed 24 fps"; chosen for the others."""

_SHORT_SIDE = 36
"""Pixels of the coded frames' shorter side (chosen): some 5 KB a key frame."""

_HEADER_SCALE = 1000
"""Units a second in the film's own header; the track counts in frames."""

_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def film(pictures: Sequence[Image.Image], size: tuple[int, int], seconds: float) -> bytes:
    """
    Make an MP4 file.

    Args:
        pictures: Each is shown for an equal share of the time; at least one.
        size: Width and height at which it asks to be shown, in pixels.
        seconds: How long it is; at least one frame for each picture is made.

    Returns:
        The file: one H.264 track, 24 frames a second, no sound.
    """
    coded = _coded_size(size)
    count = max(round(seconds * FRAMES_PER_SECOND), len(pictures))
    keys = [index * count // len(pictures) for index in range(len(pictures))]
    frames: list[bytes] = []
    for index, (picture, begin, end) in enumerate(
        zip(pictures, keys, [*keys[1:], count], strict=True)
    ):
        frames.append(_key_frame(picture.resize(coded), index % 2))
        frames += (_repeat(coded, number) for number in range(1, end - begin))
    samples = [struct.pack(">I", len(frame)) + frame for frame in frames]
    kind = _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2avc1mp41")
    # The position of the samples is part of the box that stands before them.
    sizes = [len(sample) for sample in samples]
    length = len(_movie(sizes, keys, size, coded, 0))
    movie = _movie(sizes, keys, size, coded, len(kind) + length + 8)
    return kind + movie + _box(b"mdat", *samples)


@dataclass(frozen=True, slots=True)
class Reel:
    """
    A film of a given number of bytes, written while it is read.

    Attributes:
        frame_at: Makes the picture at a moment, from 0 (begin) to 1 (end); always the same.
        shown: Width and height at which it asks to be shown, in pixels.
        seconds: How long it is.
        size: Bytes of the file: at least those of two of the smallest key frames.
    """

    frame_at: Callable[[float], Image.Image]
    shown: tuple[int, int]
    seconds: float
    size: int

    def pieces(self) -> Iterator[bytes]:
        """Write the file, a key frame at a time; takes some 30 ms of CPU time each."""
        coded = self._coded()
        count = max(round(self.seconds * FRAMES_PER_SECOND), 2)
        key_size = _key_frame_size(coded)
        fits = self._room(count) // key_size
        keys = [index * count // fits for index in range(fits)] if fits < count else [*range(count)]
        repeats = [_repeat(coded, number) for number in range(256)]
        starts = set(keys)
        sizes = [key_size if frame in starts else len(repeats[0]) for frame in range(count)]
        sizes = [4 + size for size in sizes]
        kind = _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2avc1mp41")
        length = len(_movie(sizes, keys, self.shown, coded, 0))
        movie = _movie(sizes, keys, self.shown, coded, len(kind) + length + 8)
        yield kind + movie + struct.pack(">I4s", 8 + sum(sizes), b"mdat")
        written = len(kind) + length + 8
        since = 0
        for frame, size in enumerate(sizes):
            if frame in starts:
                since = 0
                picture = self.frame_at(frame / count).resize(coded)
                content = _key_frame(picture, keys.index(frame) % 2)
            else:
                since += 1
                content = repeats[since % 256]
            written += size
            yield struct.pack(">I", len(content)) + content
        rest = self.size - written
        yield struct.pack(">I4s", rest, b"free")
        chance = random.Random(self.size)
        for start in range(8, rest, _FILLING):
            yield chance.randbytes(min(_FILLING, rest - start))

    def _room(self, count: int) -> int:
        """Bytes that are left for key frames: the tables, the repeats and `free` take theirs."""
        return self.size - 1500 - 40 * count

    def _coded(self) -> tuple[int, int]:
        """Choose the largest frames of which two fit."""
        count = max(round(self.seconds * FRAMES_PER_SECOND), 2)
        for side in range(min(*self.shown, _LARGEST_SIDE), _SHORT_SIDE, -4):
            coded = _coded_size(self.shown, side)
            if 2 * _key_frame_size(coded) <= self._room(count):
                return coded
        return _coded_size(self.shown)


_FILLING = 1 << 18
"""Bytes of the `free` box that are made at once (chosen)."""

_LARGEST_SIDE = 720
"""Pixels of the coded frames' shorter side, at most (chosen): 1.4 MB a key frame at 16:9."""


def smallest(shown: tuple[int, int], seconds: float) -> int:
    """Count the bytes of the smallest `Reel` of a size and duration."""
    count = max(round(seconds * FRAMES_PER_SECOND), 2)
    return 2 * _key_frame_size(_coded_size(shown)) + 1500 + 40 * count


def _coded_size(size: tuple[int, int], side: int = _SHORT_SIDE) -> tuple[int, int]:
    width, height = size
    scale = side / min(width, height)
    # Even, since the colour planes have half the sides.
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


# The video stream.


class _Bits:
    """A string of bits under way."""

    def __init__(self) -> None:
        self._value = 1  # a leading one keeps the zeros that follow it
        self._done = bytearray()

    def write(self, value: int, width: int) -> None:
        self._value = self._value << width | value

    def ue(self, value: int) -> None:
        """Exponential-Golomb code of an unsigned number."""
        self.write(value + 1, 2 * (value + 1).bit_length() - 1)

    def align(self, bytes_to_follow: bytes) -> None:
        """Fill up with zeros and go on with whole bytes."""
        self.write(0, -(self._value.bit_length() - 1) % 8)
        self._flush()
        self._done += bytes_to_follow

    def finish(self) -> bytes:
        """Write the stop bit and return all of it."""
        self.write(1, 1)
        self.align(b"")
        return bytes(self._done)

    def _flush(self) -> None:
        length = (self._value.bit_length() - 1) // 8
        self._done += (self._value ^ 1 << 8 * length).to_bytes(length)
        self._value = 1


def _unit(header: int, payload: bytes) -> bytes:
    """Make a NAL unit; three zeros in a row would look like the start of another."""
    if b"\0\0" not in payload:
        return bytes([header]) + payload
    escaped = bytearray([header])
    zeros = 0
    # Only the headers can hold zeros: samples are 16 and more.
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(escaped)


def _blocks(coded: tuple[int, int]) -> tuple[int, int]:
    return -(-coded[0] // 16), -(-coded[1] // 16)


def _sequence_parameters(coded: tuple[int, int]) -> bytes:
    across, down = _blocks(coded)
    bits = _Bits()
    # Constrained baseline; level 3.0, or 5.1 where the frames are too large for it.
    bits.write(0x42C01E if across * down <= 1620 else 0x42C033, 24)
    for value in (
        0,  # id
        4,  # eight bits of frame number
        2,  # frames are shown in the order in which they come
        1,  # one reference frame
    ):
        bits.ue(value)
    bits.write(0, 1)  # no gaps in the frame numbers
    bits.ue(across - 1)
    bits.ue(down - 1)
    bits.write(0b11, 2)  # frames only; direct 8x8 inference
    bits.write(1, 1)  # cropped, in steps of two pixels
    for value in (0, across * 8 - coded[0] // 2, 0, down * 8 - coded[1] // 2):
        bits.ue(value)
    bits.write(0, 1)  # no usability information
    return _unit(0x67, bits.finish())


def _picture_parameters() -> bytes:
    bits = _Bits()
    bits.ue(0)  # id
    bits.ue(0)  # id of the sequence parameters
    bits.write(0, 2)  # variable-length codes; no order for bottom fields
    for value in (0, 0, 0):  # one slice group; one reference in either list
        bits.ue(value)
    bits.write(0, 3)  # no weights
    for value in (0, 0, 0):  # quantisers
        bits.ue(value)
    bits.write(0b100, 3)  # slices say whether they are deblocked
    return _unit(0x68, bits.finish())


def _key_frame_size(coded: tuple[int, int]) -> int:
    """
    Count the bytes of a key frame without making one.

    The headers of the slice and of its first macroblock take 5 bytes and end on
    a byte; each further macroblock's header takes 2, and its samples 384.
    """
    across, down = _blocks(coded)
    return 1 + 5 + 384 + (across * down - 1) * (2 + 384) + 1


def _key_frame(picture: Image.Image, identity: int) -> bytes:
    across, down = _blocks(picture.size)
    whole = Image.new("RGB", (across * 16, down * 16))
    whole.paste(picture)
    luma, *chroma = whole.convert("YCbCr").split()
    # Pillow's range is the full one; video leaves room at both ends.
    luma = luma.point([16 + value * 219 // 255 for value in range(256)])
    chroma = [
        plane.resize((across * 8, down * 8)).point(
            [128 + (value - 128) * 224 // 255 for value in range(256)]
        )
        for plane in chroma
    ]
    bits = _Bits()
    bits.ue(0)  # from the first macroblock
    bits.ue(7)  # nothing but intra slices
    bits.ue(0)  # picture parameters
    bits.write(0, 8)  # frame number
    bits.ue(identity)  # differs between two key frames in a row
    bits.write(0, 2)  # not a long-term reference
    bits.ue(0)  # quantiser
    bits.ue(1)  # not deblocked
    for y in range(down):
        for x in range(across):
            bits.ue(25)  # I_PCM
            bits.align(
                luma.crop((x * 16, y * 16, x * 16 + 16, y * 16 + 16)).tobytes()
                + b"".join(
                    plane.crop((x * 8, y * 8, x * 8 + 8, y * 8 + 8)).tobytes() for plane in chroma
                )
            )
    return _unit(0x65, bits.finish())


def _repeat(coded: tuple[int, int], number: int) -> bytes:
    across, down = _blocks(coded)
    bits = _Bits()
    bits.ue(0)  # from the first macroblock
    bits.ue(5)  # nothing but predicted slices
    bits.ue(0)  # picture parameters
    bits.write(number % 256, 8)
    bits.write(0, 3)  # references as they are
    bits.ue(0)  # quantiser
    bits.ue(1)  # not deblocked
    bits.ue(across * down)  # all skipped
    return _unit(0x41, bits.finish())


# The container.


def _box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", len(body) + 8) + name + body


def _full(name: bytes, flags: int, *content: bytes) -> bytes:
    return _box(name, struct.pack(">I", flags), *content)


def _movie(
    samples: Sequence[int],
    keys: list[int],
    size: tuple[int, int],
    coded: tuple[int, int],
    position: int,
) -> bytes:
    count = len(samples)
    duration = count * _HEADER_SCALE // FRAMES_PER_SECOND
    header = _full(
        b"mvhd",
        0,
        struct.pack(">4I", 0, 0, _HEADER_SCALE, duration),
        struct.pack(">IH10x", 0x10000, 0x100),
        _MATRIX,
        bytes(24),
        struct.pack(">I", 2),
    )
    track = _full(
        b"tkhd",
        3,  # enabled, and in the film
        struct.pack(">5I8x4H", 0, 0, 1, 0, duration, 0, 0, 0, 0),
        _MATRIX,
        struct.pack(">2I", size[0] << 16, size[1] << 16),
    )
    media = _box(
        b"mdia",
        # 0x55C4 is "und", no language.
        _full(b"mdhd", 0, struct.pack(">4I2H", 0, 0, FRAMES_PER_SECOND, count, 0x55C4, 0)),
        _full(b"hdlr", 0, bytes(4), b"vide", bytes(12), b"VideoHandler\0"),
        _box(
            b"minf",
            _full(b"vmhd", 1, bytes(8)),
            _box(b"dinf", _full(b"dref", 0, struct.pack(">I", 1), _full(b"url ", 1))),
            _samples(samples, keys, coded, position),
        ),
    )
    return _box(b"moov", header, _box(b"trak", track, media))


def _samples(
    samples: Sequence[int], keys: list[int], coded: tuple[int, int], position: int
) -> bytes:
    count = len(samples)
    sequence, picture = _sequence_parameters(coded), _picture_parameters()
    configuration = _box(
        b"avcC",
        b"\x01",
        sequence[1:4],
        b"\xff\xe1",  # lengths of four bytes; one set of sequence parameters
        struct.pack(">H", len(sequence)),
        sequence,
        b"\x01",
        struct.pack(">H", len(picture)),
        picture,
    )
    entry = _box(
        b"avc1",
        struct.pack(">6xH16x2H", 1, *coded),
        struct.pack(">2I4xH32x2H", 0x480000, 0x480000, 1, 24, 0xFFFF),
        configuration,
    )
    return _box(
        b"stbl",
        _full(b"stsd", 0, struct.pack(">I", 1), entry),
        _full(b"stts", 0, struct.pack(">3I", 1, count, 1)),
        _full(b"stss", 0, struct.pack(f">{len(keys) + 1}I", len(keys), *(k + 1 for k in keys))),
        _full(b"stsc", 0, struct.pack(">4I", 1, 1, count, 1)),
        _full(b"stsz", 0, struct.pack(f">{count + 2}I", 0, count, *samples)),
        _full(b"stco", 0, struct.pack(">2I", 1, position)),
    )

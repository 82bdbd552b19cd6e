"""Reads a hostile ZIP: every claim of its directory is checked before a byte is unpacked, and again while unpacking.

The directory is parsed here and not by `zipfile`, which loads all of it before anything can be refused and finds a
lying size only through the checksum. Writes nothing, and never uses a member's name as a path.
Format: APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14–16 (end records).
"""

import re
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Final

from api.errors import Fault, Problem
from api.settings import ApiSettings

MIB: Final = 1 << 20
_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED: Final = 0x0001 | 0x0040 | 0x2000
_UTF8: Final = 0x0800
_UNIX: Final = 3
_PIECE: Final = 256 * 1024
_MEAN_ENTRY: Final = 1024

_BAD_NAME: Final = re.compile(r"^/|^[A-Za-z]:|\\|[\x00-\x1f\x7f]|(^|/)\.\.(/|$)")
_JUNK: Final = re.compile(r"(^|/)(__MACOSX/|\.DS_Store$|\._|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
_NESTED_NAME: Final = re.compile(r"\.(zip|7z|rar|tar|t?gz|tgz|t?bz2?|t?xz|zst|jar|cab|arj|lzh|iso)$", re.IGNORECASE)
_NESTED_MAGIC: Final = (
    b"PK\x03\x04", b"PK\x05\x06", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00",
    b"\x28\xb5\x2f\xfd",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive as its directory claims it. `end` is where the next thing in the archive begins."""

    place: int
    name: str
    raw_name: bytes
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    end: int

    def refuse(self, code: str, detail: str) -> Problem:
        return _refuse(code, detail, self.place, self.name)


def _refuse(code: str, detail: str, place: int | None = None, name: str | None = None) -> Problem:
    if name is None:
        return Problem(code, detail)
    return Problem(code, detail, [Fault(code, detail, item=place, file=name[:200])])


def _corrupt(detail: str) -> Problem:
    return Problem("zip_corrupt", detail)


def members(file: IO[bytes], settings: ApiSettings) -> list[Member]:
    """The pictures of the archive in directory order, all claims checked; folders and system junk are passed over."""
    start, size = _directory(file, settings)
    found: list[Member] = []
    names: set[str] = set()
    total = 0
    for member, flags, mode in _entries(file, start, size, settings.max_files_per_upload):
        if _BAD_NAME.search(member.name) or not member.name:
            raise member.refuse("zip_path", "Names must be relative, without `..`, backslash or control character.")
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise member.refuse("zip_symlink", "Links and special files are not accepted.")
        if member.name.endswith("/") or _JUNK.search(member.name):
            continue
        if flags & _ENCRYPTED:
            raise member.refuse("zip_encrypted", "Encrypted members cannot be read.")
        if member.name in names:
            raise member.refuse("zip_duplicate_name", "Which of the two is meant would depend on the reader.")
        names.add(member.name)
        total += member.size
        _check_sizes(member, total, settings)
        found.append(replace(member, place=len(found)))
    return _without_overlap(found, start)


def _check_sizes(member: Member, total: int, settings: ApiSettings) -> None:
    if _NESTED_NAME.search(member.name):
        raise member.refuse("zip_nested", "Archives inside archives are not opened.")
    if member.method not in (_STORED, _DEFLATED):
        raise member.refuse("zip_method", "Members must be stored or deflated.")
    if member.size > settings.max_picture_bytes:
        raise member.refuse("file_too_large", f"A file may have {settings.max_picture_bytes} bytes at most.")
    if total > settings.max_zip_unpacked_bytes:
        raise member.refuse("zip_too_large", f"All members may have {settings.max_zip_unpacked_bytes} bytes at most.")
    if (member.method == _STORED and member.packed != member.size) or (member.packed == 0 and member.size):
        raise member.refuse("zip_lying_size", "The packed and the unpacked size contradict each other.")
    if member.size > MIB and member.size > member.packed * settings.max_zip_ratio:
        raise member.refuse("zip_bomb", f"It claims to unpack to more than {settings.max_zip_ratio} times its size.")


def _directory(file: IO[bytes], settings: ApiSettings) -> tuple[int, int]:
    """Where the central directory starts, and its bytes."""
    length = file.seek(0, 2)
    tail_at = max(0, length - _END.size - 0xFFFF)
    file.seek(tail_at)
    tail = file.read(_END.size + 0xFFFF)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise _corrupt("There is no end-of-directory record: not a ZIP, or cut off.")
    _, disk, first_disk, _, count, size, offset, _ = _END.unpack_from(tail, at)
    end = tail_at + at
    if 0xFFFF in (count, disk) or 0xFFFFFFFF in (size, offset):
        count, size, offset, end = _end64(file, end)
    elif disk or first_disk:
        raise _corrupt("Archives in several parts are not accepted.")
    if count > settings.max_files_per_upload:
        raise _refuse("zip_too_many_members", f"A ZIP may have {settings.max_files_per_upload} members at most.")
    if size > count * _MEAN_ENTRY + 0xFFFF or offset + size != end:
        raise _corrupt("The end record and the directory do not fit together.")
    return offset, size


def _end64(file: IO[bytes], end: int) -> tuple[int, int, int, int]:
    if end < _LOCATOR.size + _END64.size:
        raise _corrupt("The ZIP64 end record is missing.")
    file.seek(end - _LOCATOR.size)
    signature, _, at, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if signature != b"PK\x06\x07" or at > end - _LOCATOR.size - _END64.size:
        raise _corrupt("The ZIP64 locator is damaged.")
    file.seek(at)
    record = _END64.unpack(file.read(_END64.size))
    if record[0] != b"PK\x06\x06":
        raise _corrupt("The ZIP64 end record is damaged.")
    return record[7], record[8], record[9], at


def _entries(file: IO[bytes], start: int, size: int, most: int) -> Iterator[tuple[Member, int, int]]:
    """The directory's entries with their flags and Unix mode, one at a time."""
    at, count = start, 0
    while at < start + size:
        count += 1
        if count > most:
            raise _refuse("zip_too_many_members", f"A ZIP may have {most} members at most.")
        file.seek(at)
        head = file.read(_ENTRY.size)
        if len(head) < _ENTRY.size or head[:4] != b"PK\x01\x02":
            raise _corrupt("A directory entry is damaged.")
        (_, made_by, _, flags, method, _, _, crc, packed, unpacked, name_size, extra_size, comment_size,
         _, _, attributes, offset) = _ENTRY.unpack(head)  # fmt: skip
        raw_name = file.read(name_size)
        extra = file.read(extra_size)
        if len(raw_name) < name_size or len(extra) < extra_size:
            raise _corrupt("A directory entry is cut off.")
        packed, unpacked, offset = _large(extra, packed, unpacked, offset)
        try:
            name = raw_name.decode("utf-8" if flags & _UTF8 else "cp437")
        except UnicodeDecodeError:
            name = raw_name.decode("utf-8", "replace")
            raise _refuse("zip_corrupt", "A name is not UTF-8 although it says so.", count - 1, name) from None
        mode = attributes >> 16 if made_by >> 8 == _UNIX else 0
        yield Member(count - 1, name, raw_name, method, crc, packed, unpacked, offset, start), flags, mode
        at += _ENTRY.size + name_size + extra_size + comment_size
    if at != start + size:
        raise _corrupt("The directory is longer than it says.")


def _large(extra: bytes, packed: int, unpacked: int, offset: int) -> tuple[int, int, int]:
    """The sizes and offset, from the ZIP64 extra field where the entry points there (4.5.3)."""
    values = [unpacked, packed, offset]
    if 0xFFFFFFFF not in values:
        return packed, unpacked, offset
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == 1:
            field = extra[at + 4 : at + 4 + length]
            for index, value in enumerate(values):
                if value == 0xFFFFFFFF:
                    if len(field) < 8:
                        break
                    values[index] = int.from_bytes(field[:8], "little")
                    field = field[8:]
            return values[1], values[0], values[2]
        at += 4 + length
    return packed, unpacked, offset


def _without_overlap(found: list[Member], directory: int) -> list[Member]:
    """The members with `end` set; two that share bytes are how a small archive unpacks to petabytes."""
    checked: dict[int, Member] = {}
    end = directory
    for member in sorted(found, key=lambda m: m.offset, reverse=True):
        if member.offset + _LOCAL.size + len(member.raw_name) + member.packed > end:
            raise member.refuse("zip_bomb", "Members overlap each other or the directory.")
        checked[member.place] = replace(member, end=end)
        end = member.offset
    return [checked[member.place] for member in found]


def unpack(file: IO[bytes], member: Member) -> Iterator[bytes]:
    """The member's bytes, never more than it declared.

    Problems: `zip_lying_size`, `zip_corrupt`, `zip_nested`, `zip_bomb`.
    """
    file.seek(member.offset)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
        raise member.refuse("zip_corrupt", "The local header is damaged.")
    name_size, extra_size = _LOCAL.unpack(head)[-2:]
    if file.read(name_size) != member.raw_name:
        raise member.refuse("zip_corrupt", "The local header and the directory name different files.")
    start = member.offset + _LOCAL.size + name_size + extra_size
    if start + member.packed > member.end:
        raise member.refuse("zip_bomb", "Members overlap each other or the directory.")
    packed = _packed(file, start, member.packed)
    produced, crc = 0, 0
    for piece in packed if member.method == _STORED else _inflated(packed, member):
        if produced == 0 and piece.startswith(_NESTED_MAGIC):
            raise member.refuse("zip_nested", "Archives inside archives are not opened.")
        produced += len(piece)
        if produced > member.size:
            raise member.refuse("zip_lying_size", f"It unpacks to more than the declared {member.size} bytes.")
        crc = zlib.crc32(piece, crc)
        yield piece
    if produced != member.size:
        raise member.refuse("zip_lying_size", f"It unpacks to {produced} instead of {member.size} bytes.")
    if crc != member.crc:
        raise member.refuse("zip_corrupt", "The checksum is wrong.")


def _packed(file: IO[bytes], start: int, size: int) -> Iterator[bytes]:
    file.seek(start)
    while size and (piece := file.read(min(size, _PIECE))):
        size -= len(piece)
        yield piece


def _inflated(packed: Iterator[bytes], member: Member) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for data in packed:
            while data and not inflater.eof:
                piece = inflater.decompress(data, _PIECE)
                data = inflater.unconsumed_tail
                if piece:
                    yield piece
                elif not data:
                    break
        while not inflater.eof and (piece := inflater.decompress(b"", _PIECE)):
            yield piece
    except zlib.error:
        raise member.refuse("zip_corrupt", "The compressed data is damaged.") from None
    if not inflater.eof or inflater.unused_data:
        raise member.refuse("zip_corrupt", "The compressed data ends too early or too late.")

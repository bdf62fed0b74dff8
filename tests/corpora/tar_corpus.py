"""Archives as a hostile sandbox would send them, each with what the refusal must say, and how to look at the result."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
from pathlib import Path

from sandbox_magic.archive import Unpacker

END = bytes(1024)
MAX_BYTES, MAX_FILES, MAX_DEPTH = 4000, 20, 8


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def member(
    name: bytes,
    data: bytes = b"",
    kind: bytes = b"0",
    *,
    size: bytes | None = None,
    mode: int = 0o644,
    link: bytes = b"",
    prefix: bytes = b"",
    magic: bytes = b"ustar\x0000",
    checksum: int = 0,
) -> bytes:
    """One header, with any lie in it, and its contents."""
    size = b"%011o\0" % len(data) if size is None else size
    block = (
        name.ljust(100, b"\0")[:100] + b"%07o\0" % mode + b"0000000\0" * 2 + size.rjust(12, b"0") + b"0" * 11 + b"\0"
    )
    block += b" " * 8 + kind + link.ljust(100, b"\0") + magic.ljust(8, b"\0") + bytes(80) + prefix.ljust(155, b"\0")
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % (sum(block) + checksum) + block[156:] + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    """One pax record; its length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def pax(*records: tuple[bytes, bytes]) -> bytes:
    return member(b"PaxHeaders/x", b"".join(record(*pair) for pair in records), b"x")


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return member(b"././@LongLink", name + b"\0", kind)


def by_tarfile(*members: tuple[str, bytes, str], form: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
    return file.getvalue()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def unpack(target: Path, archive: bytes, chunk: int = 65536, **options: object) -> list[Path]:
    unpacker = Unpacker(target, **options)  # type: ignore[arg-type]
    for start in range(0, len(archive), chunk):
        unpacker.feed(archive[start : start + chunk])
    return unpacker.finish()


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder: kinds, modes, contents, links."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        link = str(path.readlink()) if path.is_symlink() else ""
        found[str(path.relative_to(root))] = (oct(status.st_mode), content, link)
    return found


A_PAX_PATH = record(b"path", b"a")
HOSTILE: dict[str, tuple[bytes, str]] = {
    # kinds
    "symlink": (by_tarfile(("l", tarfile.SYMTYPE, "/etc/passwd")), "'l' is a symbolic link.*cp -rL"),
    "symlink inside": (by_tarfile(("d/l", tarfile.SYMTYPE, "x")), "a symbolic link"),
    "symlink, then through it": (member(b"l", kind=b"2", link=b"../outside") + member(b"l/x", b"x"), "a symbolic link"),
    "hard link outside": (by_tarfile(("h", tarfile.LNKTYPE, "../outside/secret.txt")), "'h' is a hard link"),
    "hard link inside": (member(b"a", b"x") + member(b"h", kind=b"1", link=b"a"), "'h' is a hard link"),
    "hard link with data": (member(b"h", b"data", b"1", link=b"keep.txt"), "'h' is a hard link"),
    "long link": (long_name(b"x" * 200, b"K") + member(b"l", kind=b"2", link=b"x"), "'l' is a symbolic link"),
    "pax link": (pax((b"linkpath", b"/etc")) + member(b"l", kind=b"2"), "a symbolic link"),
    "character device": (by_tarfile(("c", tarfile.CHRTYPE, "")), "a character device"),
    "block device": (by_tarfile(("b", tarfile.BLKTYPE, "")), "a block device"),
    "fifo": (by_tarfile(("f", tarfile.FIFOTYPE, "")), "a fifo"),
    "contiguous": (member(b"c", b"x", b"7"), "a contiguous file"),
    "sparse, old": (member(b"s", b"x", b"S"), "a sparse file"),
    "sparse, pax": (pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.name", b"n")) + member(b"s", b"x"), "a sparse file"),
    "multi volume": (member(b"m", b"x", b"M"), "unknown type 'M'"),
    "global pax": (member(b"g", A_PAX_PATH, b"g") + member(b"x"), "unknown type 'g'"),
    "dump of a folder": (member(b"d", b"Yx\0\0", b"D"), "unknown type 'D'"),
    "type ESC": (member(b"e", b"x", b"\x1b"), r"unknown type '\\x1b'"),
    # names
    "dot dot": (by_tarfile(("../outside/new", tarfile.REGTYPE, "")), "leads out"),
    "dot dot inside": (member(b"sub/../../outside/new", b"x"), "leads out"),
    "dot dot as folder": (member(b"..", kind=b"5"), "leads out"),
    "dot dot by prefix": (member(b"new", b"x", prefix=b"../outside"), "leads out"),
    "dot dot by long name": (long_name(b"../outside/" + b"n" * 120) + member(b"a", b"x"), "leads out"),
    "dot dot by pax": (pax((b"path", b"../outside/new")) + member(b"a", b"x"), "leads out"),
    "absolute": (member(b"/etc/x", b"x"), "absolute"),
    "absolute by pax": (pax((b"path", b"/etc/x")) + member(b"a", b"x"), "absolute"),
    "absolute, two slashes": (member(b"//etc/x", b"x"), "absolute"),
    "empty": (member(b"", b"x"), "empty"),
    "empty by pax": (pax((b"path", b"")) + member(b"a", b"x"), "empty"),
    "empty by prefix": (member(b"\0", b"x", prefix=b"/"), "absolute"),
    "only dots": (member(b"././.", b"x"), "name of a folder"),
    "file with a slash": (member(b"a/", b"x"), "name of a folder"),
    "ESC": (member(b"a\x1b]52;c;eA==\x07", b"x"), r"\\x1b.*control"),
    "newline": (member(b"a\nb", b"x"), r"a\\nb.*control"),
    "C1": (member("a\x9bm".encode(), b"x"), r"\\x9b.*control"),
    "bidi": (member("a\u202egpj.exe".encode(), b"x"), r"\\u202e.*control"),
    "line separator": (member("a\u2028b".encode(), b"x"), r"\\u2028.*control"),
    "not UTF-8": (member(b"a\xff\xfe", b"x"), "not UTF-8"),
    "overlong UTF-8": (member(b"\xc0\xae\xc0\xae/x", b"x"), "not UTF-8"),
    "surrogate": (pax((b"path", b"a\xed\xb0\x80")) + member(b"a"), "not UTF-8"),
    "NUL by pax": (pax((b"path", b"a\0b")) + member(b"a", b"x"), "control"),
    "NUL by long name": (long_name(b"a\0/../b") + member(b"a", b"x"), "leads out|control"),
    "long component": (long_name(b"n" * 256) + member(b"a", b"x"), "longer than 255"),
    "long component, UTF-8": (long_name("ä".encode() * 128) + member(b"a", b"x"), "longer than 255"),
    "long path": (pax((b"path", b"/".join([b"n" * 250] * 17)[:4097])) + member(b"a", b"x"), "longer than 4096"),
    "Windows device": (member(b"sub/NUL.txt", b"x"), "Windows"),
    "Windows separator": (member(b"..\\outside\\new", b"x"), "Windows"),
    "too deep": (member(b"d/" * MAX_DEPTH + b"f", b"x"), "deep"),
    "deeper and deeper": (b"".join(member(b"d/" * n, kind=b"5") for n in range(1, MAX_DEPTH + 2)), "deep"),
    "zero width": (member("a\u200bb".encode(), b"x"), r"\\u200b.*control"),
    "soft hyphen": (member("a\u00adb".encode(), b"x"), r"\\xad.*control"),
    "tags": (member("a\U000e0041".encode(), b"x"), r"\\U000e0041.*control"),
    "blank letter": (member("\u3164".encode(), b"x"), r"\\u3164.*control"),
    "byte order mark": (member("\ufeffa".encode(), b"x"), r"\\ufeff.*control"),
    # the same name twice
    "joiner clash": (member("a\u200db".encode(), b"1") + member(b"ab", b"2"), "clashes"),
    "sharp s clash": (member("stra\u00dfe".encode(), b"1") + member(b"strasse", b"2"), "clashes"),
    "long s clash": (member("\u017fsh".encode(), b"1") + member(b"ssh", b"2"), "clashes"),
    "Kelvin clash": (member("\u212a".encode(), b"1") + member(b"k", b"2"), "clashes"),
    "duplicate": (member(b"a", b"1") + member(b"a", b"2"), "clashes"),
    "duplicate by dots": (member(b"a", b"1") + member(b"./a", b"2"), "clashes"),
    "duplicate folder": (member(b"d/", kind=b"5") * 2, "clashes"),
    "case clash": (member(b"a/Readme", b"1") + member(b"a/README", b"2"), "clashes"),
    "case clash of folders": (member(b"A/x", b"1") + member(b"a/y", b"2"), "clashes"),
    "accent clash": (member("é".encode(), b"1") + member("e\u0301".encode(), b"2"), "clashes"),
    "file becomes folder": (member(b"a", b"1") + member(b"a/b", b"2"), "clashes"),
    "folder becomes file": (member(b"a/b", b"1") + member(b"a", b"2"), "clashes"),
    # what is on the host
    "onto a link": (member(b"file-link", b"x"), "link"),
    "onto a dangling link": (member(b"dangling", b"x"), "link"),
    "onto a link to a folder": (member(b"folder-link", b"x"), "link"),
    "onto a fifo": (member(b"fifo", b"x"), "device"),
    "onto a folder": (member(b"sub", b"x"), "is a folder"),
    "through a link": (member(b"folder-link/x", b"x"), "'folder-link' in the target as a folder"),
    "through a link up": (member(b"sub/up/new", b"x"), "'sub/up' in the target as a folder"),
    "folder onto a link": (member(b"folder-link", kind=b"5"), "'folder-link' in the target as a folder"),
    "folder onto a file": (member(b"keep.txt", kind=b"5"), "'keep.txt' in the target as a folder"),
    # other kinds of headers and archives
    "volume label": (member(b"v", kind=b"V"), "unknown type 'V'"),
    "old long name": (member(b"n", b"Rename a to /etc/x\n", b"N"), "unknown type 'N'"),
    "access control list": (member(b"a", b"user:root:rwx", b"A"), "unknown type 'A'"),
    "Solaris extended": (member(b"X", b"12 path=/e\n", b"X"), "unknown type 'X'"),
    "inode only": (member(b"i", kind=b"I"), "unknown type 'I'"),
    "gzip": (gzip.compress(member(b"a", b"x") + END).ljust(512, b"\0"), "damaged"),
    "bzip2": (bz2.compress(member(b"a", b"x") + END).ljust(512, b"\0"), "damaged"),
    "xz": (lzma.compress(member(b"a", b"x") + END).ljust(512, b"\0"), "damaged"),
    "a gzip bomb": (gzip.compress(bytes(10_000_000)), "damaged"),
    "zip": (b"PK\3\4".ljust(512, b"\0"), "damaged|no number"),
    "cpio": (b"070701".ljust(512, b"0"), "damaged|checksum"),
    "text": (b"tar: a: Cannot stat\n".ljust(512), "damaged|no number"),
    # sizes
    "size over the limit": (member(b"a", b"x" * (MAX_BYTES + 1)), "limit"),
    "sizes over the limit": (member(b"a", b"x" * 3000) + member(b"b", b"x" * 1001), "limit"),
    "size without data": (member(b"a", size=b"%011o\0" % 999), "cut off"),
    "8 GiB without data": (member(b"a", size=b"77777777777\0"), "limit"),
    "base 256 size": (member(b"a", size=b"\x80" + b"\0" * 5 + b"\xff" * 6), "limit"),
    "base 256, huge": (member(b"a", size=b"\x80" + b"\xff" * 11), "limit"),
    "base 256, negative": (member(b"a", size=b"\xff" * 12), "no number"),
    "minus": (member(b"a", size=b"-0000000001\0"), "no number"),
    "size of spaces": (member(b"a", size=b" " * 12), "no number"),
    "size with a gap": (member(b"a", size=b"0000\x0000001\0"), "no number"),
    "folder with contents": (member(b"d", b"x", b"5"), "contents of its own"),
    "pax size too small": (pax((b"size", b"1")) + member(b"a", b"x" * 600), "damaged"),
    "pax size too large": (pax((b"size", b"3000")) + member(b"a", b"x"), "cut off"),
    "pax size negative": (pax((b"size", b"-1")) + member(b"a"), "no number"),
    "pax size of a folder": (pax((b"size", b"9")) + member(b"d", kind=b"5"), "contents of its own"),
    "pax size of digits": (pax((b"size", b"9" * 5000)) + member(b"a"), "no number"),
    "many files": (b"".join(member(b"f%d" % n, b"x") for n in range(MAX_FILES + 1)), "files and folders, the limit"),
    "many folders": (b"".join(member(b"%d/a/b/c/d" % n, kind=b"5") for n in range(5)), "files and folders, the limit"),
    # broken
    "bad checksum": (member(b"a", b"x", checksum=1), "checksum"),
    "no checksum": (b"a" * 512, "no number"),
    "second header bad": (member(b"a", b"x") + member(b"b", b"x", checksum=-1), "checksum"),
    "pax length lies": (member(b"x", b"99 path=a\n", b"x") + member(b"a"), "no pax record"),
    "pax length zero": (member(b"x", b"0 path=a\n", b"x") + member(b"a"), "no pax record"),
    "pax without newline": (member(b"x", b"8 path=a", b"x") + member(b"a"), "no pax record"),
    "pax without equals": (member(b"x", b"5 ab\n", b"x") + member(b"a"), "no pax record"),
    "pax path twice": (pax((b"path", b"a"), (b"path", b"../b")) + member(b"c"), "no pax record"),
    "pax twice": (pax((b"path", b"a")) * 2 + member(b"c"), "come twice"),
    "long name twice": (long_name(b"a") * 2 + member(b"c"), "come twice"),
    "long name of 8 GiB": (member(b"L", kind=b"L", size=b"77777777777\0"), "bytes long"),
    "long name of nothing": (member(b"L", kind=b"L") + member(b"a"), "bytes long"),
    "pax of 8 GiB": (member(b"x", kind=b"x", size=b"\x80" + b"\xff" * 11), "bytes long"),
    "long name of no member": (long_name(b"a"), "no member"),
    "data after the end": (member(b"a", b"x") + END + member(b"b", b"x"), "after its end"),
    "data after one zero block": (member(b"a", b"x") + bytes(512) + member(b"b", b"x"), "after its end"),
    "zeros for ever": (member(b"a", b"x") + bytes(1 << 21), "after its end"),
}

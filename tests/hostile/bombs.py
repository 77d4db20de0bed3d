"""Files that are small but grow, nest or loop when they are read carelessly. Each function returns the bytes of one."""

import gzip
import tarfile
import zlib

BLOCK = 1 << 20


def _header(name, size, kind=tarfile.REGTYPE):
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.USTAR_FORMAT)


def tar_of_zeros(size):
    """A tar.gz of about size / 1000 bytes with one file of `size` zeros, a multiple of 1 MiB."""
    return gzip.compress(_header("zeros", size)) + gzip.compress(bytes(BLOCK)) * (size // BLOCK)


def tar_of_members(count):
    """A tar.gz of empty files."""
    return gzip.compress(b"".join(_header(f"file-{number}", 0) for number in range(count)))


def tar_with_pax_header(size):
    """A tar.gz whose first extended header has `size` bytes."""
    header = gzip.compress(_header("pax", size, tarfile.XHDTYPE))
    return header + gzip.compress(bytes(BLOCK)) * (size // BLOCK)


def tar_of_nested_headers(depth):
    """A tar.gz in which each extended header is followed by another one."""
    return gzip.compress((_header("pax", 512, tarfile.XHDTYPE) + bytes(512)) * depth)


def png(width, height, rows=None):
    """A black grayscale PNG of any size in few bytes; with `rows`, all further ones are missing."""

    def chunk(name, data):
        check = zlib.crc32(name + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + name + data + check

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    packed = zlib.compress(bytes((width + 1) * (height if rows is None else rows)), 9)
    parts = [chunk(b"IHDR", size + b"\x08\x00\x00\x00\x00"), chunk(b"IDAT", packed), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def nested_json(depth, start='{"kind": "sequential", "children": {"a": ', end="}}", inner='{"kind": "flatten"}'):
    """A spec document that is nested `depth` levels deep, or other JSON with another `start` and `end`."""
    return start * depth + inner + end * depth

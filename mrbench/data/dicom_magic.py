"""Whether a file is DICOM, from its first bytes alone."""

from __future__ import annotations

import struct

_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_LONG = frozenset(b"OB OD OF OL OV OW SQ UC UN UR UT SV UV".split())  # two reserved bytes, then a length of four
_FIRST_GROUPS = (0x0002, 0x0008)
_UID_ROOT = b"1.2.840.10008."  # of everything that the standard itself names (PS3.6, annex A)
_MOST = 32  # elements to look at before giving up


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins with ``start`` is DICOM (PS3.10), with or without its 128-byte preamble.

    Without a preamble the bytes must be a run of well-formed elements, in rising order, from group 0002 or 0008 on, one of
    which is a UID of the standard (a SOP class or a transfer syntax). Text, pictures and other formats never are.

    Parameters
    ----------
    start : the first 540 bytes or more (less only if the file is shorter).
    """
    if start[128:132] == b"DICM":
        return True
    if len(start) < 8:
        return False
    if start[0] == 0:  # group 0008, high byte first
        return struct.unpack(">H", start[:2])[0] in _FIRST_GROUPS and _is_dataset(start, ">")
    return struct.unpack("<H", start[:2])[0] in _FIRST_GROUPS and _is_dataset(start, "<")


def _is_dataset(start: bytes, order: str) -> bool:
    position, last = 0, (0, -1)
    for _ in range(_MOST):
        header = start[position : position + 8]
        if len(header) < 8:
            return False
        tag = struct.unpack(order + "HH", header[:4])
        if tag <= last or tag[0] > 0x0010:
            return False
        kind = header[4:6]
        if kind in _LONG:
            wide = start[position + 8 : position + 12]
            if len(wide) < 4:
                return False
            length, begin = struct.unpack(order + "I", wide)[0], position + 12
        elif kind in _VALUE_REPRESENTATIONS:
            length, begin = struct.unpack(order + "H", header[6:])[0], position + 8
        else:  # implicit: the length follows the tag
            length, begin = struct.unpack(order + "I", header[4:])[0], position + 8
        if start[begin : begin + length].startswith(_UID_ROOT) and length <= 64:
            return True
        position, last = begin + length, tag
    return False

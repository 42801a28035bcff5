"""The XML header of ISMRMRD raw data: matrix sizes and fields of view (schema: http://www.ismrm.org/ISMRMRD)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from xml.parsers import expat

_LONGEST = 2**22  # characters of a header
_DEEPEST = 64  # elements within elements
_LARGEST_SIDE = 2**16

T = TypeVar("T", int, float)


class BadHeader(ValueError):
    """A header that is no well-formed XML of the expected kind; the text says why."""


@dataclass(frozen=True)
class Space:
    """A grid: ``matrix`` points and ``fov`` mm along readout (x), phase encoding (y) and slices (z)."""

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between points along x, y, z; ``nan`` where the header has no usable length."""
        x, y, z = (f / n if f > 0 and math.isfinite(f) else math.nan for f, n in zip(self.fov, self.matrix, strict=True))
        return x, y, z


@dataclass(frozen=True)
class Header:
    """What is used of a header: its first encoding.

    encoded : the grid of k-space, readout oversampling included. recon : the grid of the image.
    """

    encoded: Space
    recon: Space


def parse_header(text: str) -> Header:
    """Read a header.

    Document types and entities are refused, not expanded: a header needs none, and small ones can unfold to gigabytes.

    Raises
    ------
    BadHeader : not XML, not such a header, too long or too deep, or sizes that are no positive numbers.
    """
    if len(text) > _LONGEST:
        raise BadHeader(f"it has {len(text)} characters")
    values = _values(text)
    if not any(path[:1] == ("ismrmrdHeader",) for path in values):
        raise BadHeader("it has no element ismrmrdHeader")
    return Header(_space(values, "encodedSpace"), _space(values, "reconSpace"))


def _values(text: str) -> dict[tuple[str, ...], str]:
    """The texts of all elements by path, without name spaces; of repeated elements the first."""
    values: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    texts: list[list[str]] = []
    seen: set[tuple[str, ...]] = set()

    def start(name: str, _: dict[str, str]) -> None:
        path.append(name.rpartition(":")[2])
        texts.append([])
        if len(path) > _DEEPEST:
            raise BadHeader("its elements are nested too deeply")

    def end(_: str) -> None:
        place = tuple(path)
        repeated = any(place[:depth] in seen for depth in range(1, len(place)))  # inside a second <encoding>, say
        if not repeated:
            values.setdefault(place, "".join(texts[-1]).strip())
        seen.add(place)
        path.pop()
        texts.pop()

    def data(piece: str) -> None:
        if texts:
            texts[-1].append(piece)

    def refuse(*_: object) -> None:
        raise BadHeader("it declares a document type or entities, which are not expanded")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        raise BadHeader(f"it is no well-formed XML ({error})") from error
    return values


def _space(values: dict[tuple[str, ...], str], name: str) -> Space:
    matrix = _three(values, name, "matrixSize", int)
    if not all(0 < n <= _LARGEST_SIDE for n in matrix):
        raise BadHeader(f"its {name} has the matrix size {matrix}")
    return Space(matrix, _three(values, name, "fieldOfView_mm", float))


def _three(values: dict[tuple[str, ...], str], space: str, name: str, kind: Callable[[str], T]) -> tuple[T, T, T]:
    numbers: list[T] = []
    for axis in "xyz":
        text = values.get(("ismrmrdHeader", "encoding", space, name, axis))
        try:
            numbers.append(kind(text or ""))
        except ValueError:
            raise BadHeader(f"its {space}/{name}/{axis} is {text!r}") from None
    return numbers[0], numbers[1], numbers[2]

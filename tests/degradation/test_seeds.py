from __future__ import annotations

import subprocess
import sys

import pytest

from mrbench.seeds import derive_seed


def test_values_are_fixed_forever() -> None:
    # sha256(b"s3:abc" b"s4:item" b"i1:1"), leading 63 bits
    assert derive_seed("abc", "item", 1) == 2876707198231160621
    assert derive_seed("abc", "item", "measurement") == 8647828983583732825


def test_encoding_is_unambiguous() -> None:
    seeds = [
        derive_seed("ab", "c"), derive_seed("a", "bc"), derive_seed("abc"), derive_seed("", "abc"), derive_seed("abc", ""),
        derive_seed("1"), derive_seed(1), derive_seed("s1:a"), derive_seed("a"), derive_seed("11"), derive_seed(1, 1),
        derive_seed(-1),
    ]  # fmt: skip
    assert len(set(seeds)) == len(seeds)


def test_seeds_fit_63_bits_and_use_them() -> None:
    seeds = [derive_seed("x", k) for k in range(2000)]
    assert all(0 <= s < 2**63 for s in seeds)
    assert len(set(seeds)) == 2000
    union = 0
    for s in seeds:
        union |= s
    assert union == 2**63 - 1


@pytest.mark.parametrize("parts", [(), (1.0,), (None,), (True,), ("a", b"b")])
def test_other_types_are_refused(parts: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        derive_seed(*parts)  # type: ignore[arg-type]


def test_import_is_light() -> None:
    code = "import sys, mrbench.seeds, mrbench.degradation.cards, mrbench_methods.interpolation; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mrbench.degradation.cards" in loaded
    assert not {"torch", "scipy", "pandas", "numpy", "PIL"} & set(loaded)

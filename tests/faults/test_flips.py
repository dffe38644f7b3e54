"""Single bits flipped anywhere in a backup's files: every one of them is found, and the backup named."""

from __future__ import annotations

import random
from pathlib import Path

import pyrage
import pytest

from larder import catalog, verification
from larder.codecs import codec
from larder.codecs.age import Age
from larder.encoding import Encoding
from larder.progress import Progress
from larder.stores.local import Local
from larder.verification import Copy
from tests.backups import RAW, lay

#: Flips in all, a share of them in each encoding.
FLIPS = 1000

ENCODINGS = {
    "gzip": lambda: Encoding([codec("gzip")]),
    "zstd": lambda: Encoding([codec("zstd")]),
    "none": lambda: Encoding([]),
    "age": lambda: Encoding(
        [codec("gzip"), Age.read_back([str(pyrage.x25519.Identity.generate().to_public())])]
    ),
}


def states(store: Local) -> list[str]:
    found = catalog.read(store)
    copies = [Copy(entry.backup, "shop", store, entry, entry.problems) for entry in found.backups]
    return [finding.state for finding in verification.verify(copies, [], Progress())]


@pytest.mark.parametrize("word", ENCODINGS)
def test_every_flipped_bit_is_found(tmp_path: Path, word: str) -> None:
    lay(tmp_path, "shop/20251016_020000", ENCODINGS[word](), raw=RAW, roles=b"CREATE ROLE clerk;\n" * 9)
    store = Local("nas", tmp_path)
    assert states(store) == ["good"]
    chance = random.Random(f"flips {word}")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    missed = []
    for number in range(FLIPS // len(ENCODINGS)):
        path = files[number % len(files)]
        whole = path.read_bytes()
        bit = chance.randrange(len(whole) * 8)
        altered = bytearray(whole)
        altered[bit // 8] ^= 1 << bit % 8
        path.write_bytes(altered)
        if states(store) != ["broken"]:
            missed.append((path.name, bit))
        path.write_bytes(whole)
    assert missed == []
    assert states(store) == ["good"]

"""A sample database, for those who want to see a backup before they have one of their own to back up.

python -m console.sample sample/shop.db
"""

from __future__ import annotations

import random
import sqlite3
import sys
from pathlib import Path

_CUSTOMERS = 5_000
_PRODUCTS = 500
_ORDERS = 40_000
_LINES = 100_000

_SCHEMA = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE);
CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price_cents INTEGER NOT NULL);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    customer INTEGER NOT NULL REFERENCES customers (id),
    placed TEXT NOT NULL
);
CREATE TABLE order_lines (
    "order" INTEGER NOT NULL REFERENCES orders (id),
    product INTEGER NOT NULL REFERENCES products (id),
    quantity INTEGER NOT NULL
);
CREATE INDEX orders_by_customer ON orders (customer);
CREATE INDEX lines_by_order ON order_lines ("order");
"""


def make(path: Path) -> int:
    """Make the sample at `path`, the same each time, unless it is there; gives the number of rows."""
    rows = _CUSTOMERS + _PRODUCTS + _ORDERS + _LINES
    if path.exists():
        return rows
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    chance = random.Random(2025)  # noqa: S311 - a sample, not a secret
    connection = sqlite3.connect(draft)
    with connection:
        connection.executescript(_SCHEMA)
        connection.executemany(
            "INSERT INTO customers VALUES (?, ?, ?)",
            ((n, f"Customer {n}", f"customer{n}@example.com") for n in range(1, _CUSTOMERS + 1)),
        )
        connection.executemany(
            "INSERT INTO products VALUES (?, ?, ?)",
            ((n, f"Product {n}", chance.randint(100, 99_900)) for n in range(1, _PRODUCTS + 1)),
        )
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?, ?)",
            (
                (
                    n,
                    chance.randint(1, _CUSTOMERS),
                    f"2025-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}",
                )
                for n in range(1, _ORDERS + 1)
            ),
        )
        connection.executemany(
            "INSERT INTO order_lines VALUES (?, ?, ?)",
            (
                (chance.randint(1, _ORDERS), chance.randint(1, _PRODUCTS), chance.randint(1, 9))
                for _ in range(_LINES)
            ),
        )
    connection.close()
    draft.rename(path)
    return rows


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "sample/shop.db")
    print(f"sample database: {target} ({make(target):,} rows)", file=sys.stderr)

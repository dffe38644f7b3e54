-- What the profile `demo` of docker-compose.yml backs up: a small shop.
CREATE TABLE customers (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL
);
CREATE TABLE orders (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer integer NOT NULL REFERENCES customers,
    total numeric(10, 2) NOT NULL,
    placed timestamptz NOT NULL
);
INSERT INTO customers (name) SELECT 'customer ' || n FROM generate_series(1, 1000) AS n;
INSERT INTO orders (customer, total, placed)
SELECT 1 + n % 1000, (n * 37 % 10000) / 100.0, timestamptz '2025-01-01 00:00:00+00' + n * interval '1 minute'
FROM generate_series(1, 100000) AS n;

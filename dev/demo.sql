-- The shop of `make demo`: keys of several kinds, and types that are easy to get wrong.

CREATE TABLE customers (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL,
    email         text NOT NULL UNIQUE,
    password_hash bytea,
    newsletter    boolean NOT NULL DEFAULT false
);

CREATE TABLE products (
    sku   text PRIMARY KEY,
    name  text NOT NULL,
    price numeric(10, 2) NOT NULL,
    sold  boolean NOT NULL DEFAULT true
);

CREATE TABLE orders (
    id        uuid PRIMARY KEY,
    customer  bigint NOT NULL REFERENCES customers,
    placed_at timestamptz NOT NULL,
    paid      boolean NOT NULL DEFAULT false,
    note      jsonb
);

CREATE TABLE order_items (
    order_id uuid REFERENCES orders,
    line     integer,
    sku      text NOT NULL REFERENCES products ON UPDATE CASCADE,
    quantity integer NOT NULL,
    price    numeric(10, 2) NOT NULL,
    PRIMARY KEY (order_id, line)
);

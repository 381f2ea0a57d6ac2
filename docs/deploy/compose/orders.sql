CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL, amount bigint, currency text, updated_at timestamptz);

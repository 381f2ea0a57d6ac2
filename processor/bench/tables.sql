-- The user's table of the order-status job.
CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL, amount bigint, currency text, updated_at timestamptz);

-- What the rivals write: the same rows, in tables as bare as they can be.
CREATE SCHEMA bare;
CREATE TABLE bare.identities (
    source text COLLATE "C", event_id text COLLATE "C", body_sha256 bytea NOT NULL, first_seen_at timestamptz NOT NULL,
    delivery_id uuid NOT NULL, PRIMARY KEY (source, event_id)
);
CREATE TABLE bare.bodies (
    source text COLLATE "C", event_id text COLLATE "C", type text NOT NULL, event_time timestamptz, received_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(), headers jsonb NOT NULL, body bytea NOT NULL, delivery_id uuid NOT NULL,
    PRIMARY KEY (source, event_id)
);
CREATE TABLE bare.results (
    source text COLLATE "C", event_id text COLLATE "C", operation text COLLATE "C", attempt integer, outcome text NOT NULL,
    started_at timestamptz NOT NULL, PRIMARY KEY (source, event_id, operation, attempt)
);
CREATE TABLE bare.orders (id text PRIMARY KEY, status text NOT NULL, amount bigint, currency text, updated_at timestamptz);

-- What Bento writes: one row an event.
CREATE TABLE bento_events (
    n bigserial, id text PRIMARY KEY, type text, order_id text, amount bigint, created timestamptz, body text
);

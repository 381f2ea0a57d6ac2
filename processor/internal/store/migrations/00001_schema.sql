-- +goose Up

-- The unique key of every event. Hash-partitioned, never by time: Postgres can enforce uniqueness over partitions only
-- on the partition key, and a duplicate after midnight must still be one.
CREATE TABLE catchment.identities (
    source        text COLLATE "C" NOT NULL,
    event_id      text COLLATE "C" NOT NULL,
    body_sha256   bytea NOT NULL,
    first_seen_at timestamptz NOT NULL,
    delivery_id   uuid NOT NULL,
    PRIMARY KEY (source, event_id)
) PARTITION BY HASH (source, event_id);
CREATE TABLE catchment.identities_0 PARTITION OF catchment.identities FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE catchment.identities_1 PARTITION OF catchment.identities FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE catchment.identities_2 PARTITION OF catchment.identities FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE catchment.identities_3 PARTITION OF catchment.identities FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE catchment.identities_4 PARTITION OF catchment.identities FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE catchment.identities_5 PARTITION OF catchment.identities FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE catchment.identities_6 PARTITION OF catchment.identities FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE catchment.identities_7 PARTITION OF catchment.identities FOR VALUES WITH (MODULUS 8, REMAINDER 7);

-- What the view events shows. note: why a condition could not be evaluated.
CREATE TABLE catchment.bodies (
    seq            bigint GENERATED ALWAYS AS IDENTITY,
    source         text COLLATE "C" NOT NULL,
    event_id       text COLLATE "C" NOT NULL,
    type           text NOT NULL,
    event_time     timestamptz,
    received_at    timestamptz NOT NULL,
    stored_at      timestamptz NOT NULL DEFAULT now(),
    status         text NOT NULL CHECK (status IN ('processed', 'unmatched', 'failed', 'deferred', 'dead')),
    provider       text NOT NULL,
    verdict        text NOT NULL,
    secret_id      text NOT NULL,
    content_type   text NOT NULL,
    headers        jsonb NOT NULL,
    body           bytea NOT NULL,
    body_sha256    bytea NOT NULL,
    delivery_id    uuid NOT NULL,
    delivery_index integer NOT NULL,
    topic          text NOT NULL,
    topic_id       uuid NOT NULL,
    partition      integer NOT NULL,
    "offset"       bigint NOT NULL,
    leader_epoch   integer NOT NULL,
    note           text,
    PRIMARY KEY (source, event_id)
);
CREATE UNIQUE INDEX bodies_seq ON catchment.bodies (seq);
CREATE INDEX bodies_unfinished ON catchment.bodies (status, seq) WHERE status IN ('failed', 'deferred', 'dead');

-- Further deliveries of an event, with the same body.
CREATE TABLE catchment.duplicates (
    source      text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    delivery_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT now(),
    topic       text NOT NULL,
    topic_id    uuid NOT NULL,
    partition   integer NOT NULL,
    "offset"    bigint NOT NULL,
    PRIMARY KEY (source, event_id, topic_id, partition, "offset")
);

-- Further deliveries of an event, with another body: the first bytes won.
CREATE TABLE catchment.conflicts (
    source      text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    delivery_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    body        bytea NOT NULL,
    body_sha256 bytea NOT NULL,
    headers     jsonb NOT NULL,
    topic       text NOT NULL,
    topic_id    uuid NOT NULL,
    partition   integer NOT NULL,
    "offset"    bigint NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, event_id, topic_id, partition, "offset")
);

-- One row an attempt of an operation for an event. duration: the operations of a batch share one round trip, and each gets
-- the time from the previous one's result to its own; 0: the SQL was not run.
CREATE TABLE catchment.results (
    source            text COLLATE "C" NOT NULL,
    event_id          text COLLATE "C" NOT NULL,
    delivery_id       uuid NOT NULL,
    operation         text COLLATE "C" NOT NULL,
    definition_sha256 bytea NOT NULL,
    attempt           integer NOT NULL,
    outcome           text NOT NULL CHECK (outcome IN ('succeeded', 'superseded', 'failed', 'dead', 'deferred')),
    entity            text,
    version           text,
    rows_affected     bigint,
    returned          jsonb,
    error             text,
    started_at        timestamptz NOT NULL,
    duration          interval NOT NULL,
    PRIMARY KEY (source, event_id, operation, attempt)
);

-- Attempts that are still to be made.
CREATE TABLE catchment.retries (
    source          text COLLATE "C" NOT NULL,
    event_id        text COLLATE "C" NOT NULL,
    operation       text COLLATE "C" NOT NULL,
    attempt         integer NOT NULL,
    due_at          timestamptz NOT NULL,
    first_failed_at timestamptz NOT NULL,
    error           text NOT NULL,
    PRIMARY KEY (source, event_id, operation)
);
CREATE INDEX retries_due ON catchment.retries (due_at);

-- The newest version of an entity within a guard. version compares bytewise; empty: not written yet.
CREATE TABLE catchment.entities (
    guard      text COLLATE "C" NOT NULL,
    entity     text COLLATE "C" NOT NULL,
    version    bytea NOT NULL DEFAULT '',
    event_id   text COLLATE "C" NOT NULL DEFAULT '',
    source     text COLLATE "C" NOT NULL DEFAULT '',
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (guard, entity)
) WITH (fillfactor = 70); -- every write replaces the row: room for that on its page

-- What could not be done: an operation for an event, or a whole record (key, headers, value; no operation).
CREATE TABLE catchment.dead_letters (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source          text COLLATE "C",
    event_id        text COLLATE "C",
    operation       text COLLATE "C",
    reason          text NOT NULL,
    error           text NOT NULL,
    attempts        integer NOT NULL,
    first_failed_at timestamptz NOT NULL,
    last_failed_at  timestamptz NOT NULL,
    topic           text NOT NULL,
    topic_id        uuid NOT NULL,
    partition       integer NOT NULL,
    "offset"        bigint NOT NULL,
    key             bytea,
    headers         jsonb,
    value           bytea
);
CREATE UNIQUE INDEX dead_letters_operation ON catchment.dead_letters (source, event_id, operation) WHERE operation IS NOT NULL;

-- The consumer's position. It moves in the transaction that stores what it passes.
CREATE TABLE catchment.progress (
    topic        text NOT NULL,
    topic_id     uuid NOT NULL,
    partition    integer NOT NULL,
    next_offset  bigint NOT NULL,
    leader_epoch integer NOT NULL DEFAULT -1,
    owner        uuid NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic_id, partition)
) WITH (fillfactor = 20);

-- Every definition of an operation that was ever in use.
CREATE TABLE catchment.definitions (
    sha256        bytea PRIMARY KEY,
    name          text NOT NULL,
    definition    jsonb NOT NULL,
    first_used_at timestamptz NOT NULL DEFAULT now()
);

-- What people did.
CREATE TABLE catchment.actions (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT now(),
    actor     text NOT NULL,
    command   text NOT NULL,
    reason    text NOT NULL,
    selection jsonb NOT NULL,
    affected  bigint NOT NULL
);

CREATE VIEW catchment.events AS
SELECT b.source, b.event_id, b.type, b.event_time, b.received_at, b.stored_at, b.status, b.secret_id, b.content_type,
       b.headers, b.body, b.body_sha256, b.delivery_id, b.delivery_index, b.topic, b.topic_id, b.partition, b."offset",
       (1 + (SELECT count(*) FROM catchment.duplicates d WHERE d.source = b.source AND d.event_id = b.event_id)
          + (SELECT count(*) FROM catchment.conflicts c WHERE c.source = b.source AND c.event_id = b.event_id))::integer AS deliveries
FROM catchment.bodies b;

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

-- What the view events shows, one partition a UTC day of stored_at, so that a day can be dropped as a whole. stored_at is
-- the event's first_seen_at in identities (both are their transaction's now()): with it a query by ID opens one day. There
-- is no default partition: its rows would have to be scanned under a lock whenever a day is made. note: why a condition
-- could not be evaluated.
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
    PRIMARY KEY (source, event_id, stored_at)
) PARTITION BY RANGE (stored_at);
CREATE INDEX bodies_seq ON catchment.bodies (seq);
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

-- Makes the days of bodies from yesterday (clocks differ) to so many ahead, where they are not there, and returns how many
-- it made. It runs with its owner's rights, since the processor's role may not change the schema; whoever may insert events
-- may call it. A table that is made first and attached then locks out no writer.
-- +goose StatementBegin
CREATE FUNCTION catchment.make_partitions(ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    day   date;
    name  text;
    made  integer := 0;
BEGIN
    IF NOT has_table_privilege(session_user, 'catchment.bodies', 'INSERT') THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s may not insert into catchment.bodies', session_user);
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('catchment.make_partitions'));
    FOR n IN -1..least(greatest(ahead, 0), 366) LOOP
        day := today + n;
        name := 'bodies_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('catchment.' || name) IS NOT NULL OR to_regclass('catchment.' || name || '_open') IS NOT NULL;
        EXECUTE format('CREATE TABLE catchment.%I (LIKE catchment.bodies INCLUDING DEFAULTS INCLUDING CONSTRAINTS'
            ' INCLUDING INDEXES INCLUDING STORAGE INCLUDING COMPRESSION)', name);
        EXECUTE format('ALTER TABLE catchment.bodies ATTACH PARTITION catchment.%I FOR VALUES FROM (%L) TO (%L)',
            name, to_char(day, 'YYYY-MM-DD 00:00:00+00'), to_char(day + 1, 'YYYY-MM-DD 00:00:00+00'));
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
-- +goose StatementEnd

-- Drops the oldest day of bodies that ended before the given time, and returns it; no row: there is none. Events that are
-- not done with stay, as a partition of their own, which goes once they are: kept says how many. Whoever may delete events
-- may call it. Writers wait for it for 200 ms at most: where it cannot have the table in that time, it fails with 55P03.
-- +goose StatementBegin
CREATE FUNCTION catchment.drop_partition(before timestamptz, OUT day date, OUT kept bigint) RETURNS SETOF record
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    old   record;
    fresh text;
BEGIN
    IF NOT has_table_privilege(session_user, 'catchment.bodies', 'DELETE') THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s may not delete from catchment.bodies', session_user);
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtext('catchment.drop_partition')) THEN
        RETURN;
    END IF;
    FOR old IN
        SELECT c.relname::text AS name, to_date(substr(c.relname, 8, 8), 'YYYYMMDD') AS day, c.relname LIKE '%\_open' AS trimmed
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'catchment.bodies'::regclass AND c.relname ~ '^bodies_\d{8}(_open)?$'
          AND (to_date(substr(c.relname, 8, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' <= before
        ORDER BY trimmed, day
    LOOP
        day := old.day;
        kept := 0;
        IF old.trimmed THEN
            EXECUTE format('DELETE FROM catchment.%I b WHERE b.status NOT IN (''failed'', ''deferred'', ''dead'')'
                ' AND NOT EXISTS (SELECT FROM catchment.retries r WHERE r.source = b.source AND r.event_id = b.event_id)', old.name);
            EXECUTE format('SELECT count(*) FROM (SELECT FROM catchment.%I LIMIT 1) AS x', old.name) INTO kept;
            CONTINUE WHEN kept > 0;
        ELSE
            fresh := old.name || '_open';
            EXECUTE format('LOCK TABLE catchment.%I IN EXCLUSIVE MODE', old.name); -- readers go on, today's writers as well
            EXECUTE format('CREATE TABLE catchment.%I (LIKE catchment.bodies INCLUDING DEFAULTS INCLUDING CONSTRAINTS'
                ' INCLUDING INDEXES INCLUDING STORAGE INCLUDING COMPRESSION, CONSTRAINT day CHECK (stored_at >= %L AND stored_at < %L))',
                fresh, to_char(day, 'YYYY-MM-DD 00:00:00+00'), to_char(day + 1, 'YYYY-MM-DD 00:00:00+00'));
            EXECUTE format('INSERT INTO catchment.%1$I SELECT b.* FROM catchment.%2$I b WHERE b.status IN (''failed'', ''deferred'', ''dead'')'
                ' UNION ALL SELECT b.* FROM catchment.%2$I b WHERE b.status NOT IN (''failed'', ''deferred'', ''dead'')'
                ' AND (b.source, b.event_id) IN (SELECT r.source, r.event_id FROM catchment.retries r)', fresh, old.name);
            GET DIAGNOSTICS kept = ROW_COUNT;
        END IF;
        PERFORM set_config('lock_timeout', '200ms', true); -- from here on writers wait
        EXECUTE format('ALTER TABLE catchment.bodies DETACH PARTITION catchment.%I', old.name);
        IF kept > 0 THEN
            EXECUTE format('ALTER TABLE catchment.bodies ATTACH PARTITION catchment.%I FOR VALUES FROM (%L) TO (%L)',
                fresh, to_char(day, 'YYYY-MM-DD 00:00:00+00'), to_char(day + 1, 'YYYY-MM-DD 00:00:00+00'));
            EXECUTE format('ALTER TABLE catchment.%I DROP CONSTRAINT day', fresh);
        ELSIF NOT old.trimmed THEN
            EXECUTE format('DROP TABLE catchment.%I', fresh);
        END IF;
        EXECUTE format('DROP TABLE catchment.%I', old.name);
        RETURN NEXT;
        RETURN;
    END LOOP;
END $$;
-- +goose StatementEnd

SELECT catchment.make_partitions(7);

-- +goose Up

-- Operations that somebody has paused: their attempts wait in retries until they are resumed.
CREATE TABLE catchment.paused_operations (
    operation text COLLATE "C" PRIMARY KEY,
    paused_at timestamptz NOT NULL DEFAULT now(),
    actor     text NOT NULL,
    reason    text NOT NULL
);

-- Redrives and replays, which the processor runs. The row moves on in the transactions that hold the effects.
-- last: the greatest ID or cursor that has been passed; upto: the greatest that was there when the job began.
-- next_at: when it goes on, for its rate and for live traffic's sake.
CREATE TABLE catchment.jobs (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('redrive', 'replay')),
    operation   text COLLATE "C",
    selection   jsonb NOT NULL,
    force       boolean NOT NULL DEFAULT false,
    rate        double precision,
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'cancelled')),
    expected    bigint NOT NULL,
    last        bigint NOT NULL DEFAULT 0,
    upto        bigint,
    succeeded   bigint NOT NULL DEFAULT 0,
    superseded  bigint NOT NULL DEFAULT 0,
    failed      bigint NOT NULL DEFAULT 0,
    dead        bigint NOT NULL DEFAULT 0,
    skipped     bigint NOT NULL DEFAULT 0,
    note        text,
    action_id   bigint NOT NULL,
    actor       text NOT NULL,
    reason      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    finished_at timestamptz,
    next_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX jobs_open ON catchment.jobs (next_at) WHERE state IN ('waiting', 'running');

-- What is due is looked for by operation, so that the rows of paused and of forgotten operations are not passed over again
-- and again.
CREATE INDEX retries_operation ON catchment.retries (operation, due_at);
DROP INDEX catchment.retries_due;
CREATE INDEX dead_letters_event ON catchment.dead_letters (source, event_id);

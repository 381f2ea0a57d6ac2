-- +goose Up

-- A delivery may carry several events, and two of them one ID: each of them is a repetition of its own.
ALTER TABLE catchment.duplicates
    ADD COLUMN delivery_index integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT duplicates_pkey,
    ADD PRIMARY KEY (source, event_id, topic_id, partition, "offset", delivery_index);
ALTER TABLE catchment.conflicts
    ADD COLUMN delivery_index integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT conflicts_pkey,
    ADD PRIMARY KEY (source, event_id, topic_id, partition, "offset", delivery_index);

-- What is to be published after COMMIT: one row a topic of a transaction. packed: the records, compressed before they get here.
CREATE TABLE catchment.outbox (
    topic      text COLLATE "C" NOT NULL,
    id         bigint GENERATED ALWAYS AS IDENTITY,
    records    integer NOT NULL,
    packed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, id)
);
ALTER TABLE catchment.outbox ALTER COLUMN packed SET STORAGE EXTERNAL;

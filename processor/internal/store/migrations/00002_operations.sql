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

-- Views of the archive for DuckDB 1.3 and later. Say where the archive lies, then read this file:
--
--     SET VARIABLE archive = 's3://bucket/prefix';    -- or a folder; without a slash at the end
--     .read schemas/views/duckdb.sql
--
-- The views look up the variable, and list the files, at each query. What they mean is in docs/analysts.md.

-- One row a delivery, also those that repeat an event.
CREATE OR REPLACE VIEW deliveries AS
SELECT * FROM read_parquet(getvariable('archive') || '/events/date=*/*.parquet', hive_partitioning = true)
WHERE source IS NOT NULL;

-- The first delivery of each event. Bodies do not go through the aggregate, so that large ones take no memory there.
CREATE OR REPLACE VIEW events AS
SELECT * FROM deliveries
SEMI JOIN (
    SELECT source, event_id, unnest(arg_min(
        struct_pack(topic_id := topic_id, "partition" := "partition", "offset" := "offset"),
        struct_pack(at := kafka_timestamp, topic_id := topic_id, "partition" := "partition", "offset" := "offset")))
    FROM deliveries GROUP BY source, event_id
) USING (source, event_id, topic_id, "partition", "offset");

-- One row for each attempt of each operation; a result that was published twice is there once. The pattern matches events/ and results/, because one that matches nothing
-- is an error, and there may be no results yet; of events/ no file is opened but for its columns' names.
CREATE OR REPLACE VIEW outcomes AS
SELECT
    result->>'$.source' AS source,
    result->>'$.event_id' AS event_id,
    result->>'$.delivery_id' AS delivery_id,
    result->>'$.operation' AS operation,
    result->>'$.definition_sha256' AS definition_sha256,
    CAST(result->>'$.attempt' AS INTEGER) AS attempt,
    result->>'$.outcome' AS outcome,
    result->>'$.entity' AS entity,
    result->>'$.version' AS version,
    CAST(result->>'$.rows_affected' AS BIGINT) AS rows_affected,
    nullif(result->'$.returned', 'null') AS returned,
    result->>'$.error' AS error,
    CAST(result->>'$.started_at' AS TIMESTAMPTZ) AS started_at,
    CAST(result->>'$.duration_seconds' AS DOUBLE) AS duration_seconds,
    kafka_timestamp AS published_at,
    date
FROM (
    SELECT TRY_CAST(TRY(decode(body)) AS JSON) AS result, kafka_timestamp, date, body_sha256, topic_id, "partition", "offset"
    FROM read_parquet(getvariable('archive') || '/[er][ve][es][nu]*/date=*/*.parquet', hive_partitioning = true, filename = true)
    WHERE filename LIKE '%/results/date=%' AND type = 'catchment.result'
)
WHERE result IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY body_sha256 ORDER BY kafka_timestamp, topic_id, "partition", "offset") = 1;

-- Deliveries whose body is another one than that of their event's first delivery.
CREATE OR REPLACE VIEW conflicts AS
SELECT d.*, e.delivery_id AS first_delivery_id, e.received_at AS first_received_at, e.body_sha256 AS first_body_sha256
FROM deliveries d
JOIN events e ON d.source = e.source AND d.event_id = e.event_id AND d.body_sha256 <> e.body_sha256;

-- Events without a final result (succeeded, superseded or dead) of each operation that has tried, 15 minutes, or
-- SET VARIABLE grace = INTERVAL …, after they came. results is how far the operations are; NULL: none has tried, which is as
-- it should be where no operation wants the event, as type_has_results = false hints. A delivery that carries several
-- events (verdict batch) stands here for all of them; their results have IDs of their own, and are found by the delivery.
CREATE OR REPLACE VIEW unprocessed AS
WITH latest AS (
    SELECT source, event_id, operation, arg_max(outcome, (started_at, attempt)) AS outcome, arg_max(delivery_id, (started_at, attempt)) AS delivery_id
    FROM outcomes GROUP BY source, event_id, operation
),
by_event AS (
    SELECT source, event_id, string_agg(operation || ' ' || outcome, ', ' ORDER BY operation) AS results,
        bool_and(outcome IN ('succeeded', 'superseded', 'dead')) AS final
    FROM latest GROUP BY source, event_id
),
by_delivery AS (
    SELECT source, delivery_id, string_agg(DISTINCT operation || ' ' || outcome, ', ' ORDER BY operation || ' ' || outcome) AS results,
        bool_and(outcome IN ('succeeded', 'superseded', 'dead')) AS final
    FROM latest GROUP BY source, delivery_id
),
types AS (
    SELECT source, type FROM events SEMI JOIN latest USING (source, event_id)
    UNION SELECT source, type FROM events SEMI JOIN latest USING (source, delivery_id)
)
SELECT e.source, e.event_id, e.type, e.event_time, e.received_at, e.kafka_timestamp, e.delivery_id, e.verdict,
    coalesce(r.results, d.results) AS results, t.source IS NOT NULL AS type_has_results,
    e.topic, e.topic_id, e."partition", e."offset", e.date
FROM events e
LEFT JOIN by_event r ON r.source = e.source AND r.event_id = e.event_id
LEFT JOIN by_delivery d ON d.source = e.source AND d.delivery_id = e.delivery_id AND contains(e.verdict, 'batch')
LEFT JOIN types t ON t.source = e.source AND t.type IS NOT DISTINCT FROM e.type
WHERE NOT coalesce(r.final, d.final, false)
    AND e.kafka_timestamp < now() - coalesce(getvariable('grace')::INTERVAL, INTERVAL 15 MINUTE);

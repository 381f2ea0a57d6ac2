-- The archive for Trino's Hive connector. Replace <archive> by s3://bucket/prefix, and run it in a schema of its own. The
-- catalog needs hive.timestamp-precision=MICROSECONDS and hive.parquet.use-column-names=true. Times are UTC.
-- Trino learns of each new day by
--     CALL <catalog>.system.sync_partition_metadata('<schema>', 'delivery_files', 'ADD')
--     CALL <catalog>.system.sync_partition_metadata('<schema>', 'result_files', 'ADD')
-- What the views mean is in docs/analysts.md. In CI it is translated for DuckDB, and gives the rows
-- that duckdb.sql gives; this engine has not run it.

CREATE TABLE delivery_files (
    source VARCHAR,
    provider VARCHAR,
    event_id VARCHAR,
    type VARCHAR,
    event_time TIMESTAMP(6),
    received_at TIMESTAMP(6),
    kafka_timestamp TIMESTAMP(6),
    delivery_id VARCHAR,
    content_type VARCHAR,
    headers MAP(VARCHAR, ARRAY(VARCHAR)),
    body VARBINARY,
    body_sha256 VARBINARY,
    method VARCHAR,
    path VARCHAR,
    query VARCHAR,
    signed_url VARCHAR,
    remote_addr VARCHAR,
    secret_id VARCHAR,
    verdict VARCHAR,
    body_key_id VARCHAR,
    attributes MAP(VARCHAR, VARCHAR),
    topic VARCHAR,
    topic_id VARCHAR,
    "partition" INTEGER,
    "offset" BIGINT,
    schema_version INTEGER,
    "date" DATE
) WITH (format = 'PARQUET', external_location = '<archive>/events', partitioned_by = ARRAY['date']);

CREATE TABLE result_files (
    source VARCHAR,
    provider VARCHAR,
    event_id VARCHAR,
    type VARCHAR,
    event_time TIMESTAMP(6),
    received_at TIMESTAMP(6),
    kafka_timestamp TIMESTAMP(6),
    delivery_id VARCHAR,
    content_type VARCHAR,
    headers MAP(VARCHAR, ARRAY(VARCHAR)),
    body VARBINARY,
    body_sha256 VARBINARY,
    method VARCHAR,
    path VARCHAR,
    query VARCHAR,
    signed_url VARCHAR,
    remote_addr VARCHAR,
    secret_id VARCHAR,
    verdict VARCHAR,
    body_key_id VARCHAR,
    attributes MAP(VARCHAR, VARCHAR),
    topic VARCHAR,
    topic_id VARCHAR,
    "partition" INTEGER,
    "offset" BIGINT,
    schema_version INTEGER,
    "date" DATE
) WITH (format = 'PARQUET', external_location = '<archive>/results', partitioned_by = ARRAY['date']);

CREATE VIEW deliveries AS
SELECT * FROM delivery_files WHERE source IS NOT NULL;

CREATE VIEW events AS
SELECT d.* FROM deliveries d
JOIN (
    SELECT source, event_id, topic_id, "partition", "offset"
    FROM (
        SELECT source, event_id, topic_id, "partition", "offset",
            row_number() OVER (PARTITION BY source, event_id ORDER BY kafka_timestamp, topic_id, "partition", "offset") AS place
        FROM deliveries
    ) ranked WHERE place = 1
) f ON d.source = f.source AND d.event_id = f.event_id AND d.topic_id = f.topic_id AND d."partition" = f."partition" AND d."offset" = f."offset";

CREATE VIEW outcomes AS
SELECT
    json_extract_scalar(result, '$.source') AS source,
    json_extract_scalar(result, '$.event_id') AS event_id,
    json_extract_scalar(result, '$.delivery_id') AS delivery_id,
    json_extract_scalar(result, '$.operation') AS operation,
    json_extract_scalar(result, '$.definition_sha256') AS definition_sha256,
    CAST(json_extract_scalar(result, '$.attempt') AS INTEGER) AS attempt,
    json_extract_scalar(result, '$.outcome') AS outcome,
    json_extract_scalar(result, '$.entity') AS entity,
    json_extract_scalar(result, '$.version') AS version,
    CAST(json_extract_scalar(result, '$.rows_affected') AS BIGINT) AS rows_affected,
    nullif(json_extract(result, '$.returned'), JSON 'null') AS returned,
    json_extract_scalar(result, '$.error') AS error,
    CAST(from_iso8601_timestamp(json_extract_scalar(result, '$.started_at')) AT TIME ZONE 'UTC' AS TIMESTAMP(6)) AS started_at,
    CAST(json_extract_scalar(result, '$.duration_seconds') AS DOUBLE) AS duration_seconds,
    published_at, "date"
FROM (
    SELECT TRY(json_parse(from_utf8(body))) AS result, kafka_timestamp AS published_at, "date",
        row_number() OVER (PARTITION BY body_sha256 ORDER BY kafka_timestamp, topic_id, "partition", "offset") AS place
    FROM result_files WHERE type = 'catchment.result'
) published
WHERE place = 1 AND result IS NOT NULL;

CREATE VIEW conflicts AS
SELECT d.*, e.delivery_id AS first_delivery_id, e.received_at AS first_received_at, e.body_sha256 AS first_body_sha256
FROM deliveries d
JOIN events e ON d.source = e.source AND d.event_id = e.event_id AND d.body_sha256 <> e.body_sha256;

CREATE VIEW unprocessed AS
WITH latest AS (
    SELECT source, event_id, operation, outcome, delivery_id
    FROM (
        SELECT source, event_id, operation, outcome, delivery_id,
            row_number() OVER (PARTITION BY source, event_id, operation ORDER BY started_at DESC, attempt DESC) AS place
        FROM outcomes
    ) ranked WHERE place = 1
),
by_event AS (
    SELECT source, event_id, array_join(array_sort(array_distinct(array_agg(operation || ' ' || outcome))), ', ') AS results,
        bool_and(outcome IN ('succeeded', 'superseded', 'dead')) AS final
    FROM latest GROUP BY source, event_id
),
by_delivery AS (
    SELECT source, delivery_id, array_join(array_sort(array_distinct(array_agg(operation || ' ' || outcome))), ', ') AS results,
        bool_and(outcome IN ('succeeded', 'superseded', 'dead')) AS final
    FROM latest GROUP BY source, delivery_id
),
types AS (
    SELECT e.source, e.type FROM events e JOIN latest l ON l.source = e.source AND l.event_id = e.event_id
    UNION SELECT e.source, e.type FROM events e JOIN latest l ON l.source = e.source AND l.delivery_id = e.delivery_id
)
SELECT e.source, e.event_id, e.type, e.event_time, e.received_at, e.kafka_timestamp, e.delivery_id, e.verdict,
    coalesce(r.results, d.results) AS results, t.source IS NOT NULL AS type_has_results,
    e.topic, e.topic_id, e."partition", e."offset", e."date"
FROM events e
LEFT JOIN by_event r ON r.source = e.source AND r.event_id = e.event_id
LEFT JOIN by_delivery d ON d.source = e.source AND d.delivery_id = e.delivery_id AND strpos(e.verdict, 'batch') > 0
LEFT JOIN types t ON t.source = e.source AND t.type IS NOT DISTINCT FROM e.type
WHERE NOT coalesce(r.final, d.final, FALSE)
    AND e.kafka_timestamp < CAST(current_timestamp AT TIME ZONE 'UTC' AS TIMESTAMP(6)) - INTERVAL '15' MINUTE;

-- The archive for Snowflake, over an external stage:
--     CREATE STAGE archive URL = 's3://<bucket>/<prefix>/' STORAGE_INTEGRATION = <integration>
--         FILE_FORMAT = (TYPE = PARQUET, USE_LOGICAL_TYPE = TRUE, BINARY_AS_TEXT = FALSE);
-- Times are UTC. Snowflake bounds a value that is read from a file (16 MB, or 128 MB of late): larger bodies are an error there.
-- What the views mean is in docs/analysts.md. In CI it is translated for DuckDB, and gives the rows
-- that duckdb.sql gives; this engine has not run it.

CREATE VIEW deliveries AS
SELECT
    $1:source::VARCHAR AS source,
    $1:provider::VARCHAR AS provider,
    $1:event_id::VARCHAR AS event_id,
    $1:type::VARCHAR AS type,
    $1:event_time::TIMESTAMP_NTZ AS event_time,
    $1:received_at::TIMESTAMP_NTZ AS received_at,
    $1:kafka_timestamp::TIMESTAMP_NTZ AS kafka_timestamp,
    $1:delivery_id::VARCHAR AS delivery_id,
    $1:content_type::VARCHAR AS content_type,
    $1:headers AS headers,
    $1:body::BINARY AS body,
    $1:body_sha256::BINARY AS body_sha256,
    $1:method::VARCHAR AS method,
    $1:path::VARCHAR AS path,
    $1:query::VARCHAR AS query,
    $1:signed_url::VARCHAR AS signed_url,
    $1:remote_addr::VARCHAR AS remote_addr,
    $1:secret_id::VARCHAR AS secret_id,
    $1:verdict::VARCHAR AS verdict,
    $1:body_key_id::VARCHAR AS body_key_id,
    $1:attributes AS attributes,
    $1:topic::VARCHAR AS topic,
    $1:topic_id::VARCHAR AS topic_id,
    $1:partition::INTEGER AS "partition",
    $1:offset::BIGINT AS "offset",
    $1:schema_version::INTEGER AS schema_version,
    TO_DATE(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'date=', 2), '/', 1)) AS date
FROM @archive/events/ (PATTERN => '.*[.]parquet')
WHERE $1:source IS NOT NULL;

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

CREATE VIEW result_files AS
SELECT
    $1:source::VARCHAR AS source,
    $1:provider::VARCHAR AS provider,
    $1:event_id::VARCHAR AS event_id,
    $1:type::VARCHAR AS type,
    $1:event_time::TIMESTAMP_NTZ AS event_time,
    $1:received_at::TIMESTAMP_NTZ AS received_at,
    $1:kafka_timestamp::TIMESTAMP_NTZ AS kafka_timestamp,
    $1:delivery_id::VARCHAR AS delivery_id,
    $1:content_type::VARCHAR AS content_type,
    $1:headers AS headers,
    $1:body::BINARY AS body,
    $1:body_sha256::BINARY AS body_sha256,
    $1:method::VARCHAR AS method,
    $1:path::VARCHAR AS path,
    $1:query::VARCHAR AS query,
    $1:signed_url::VARCHAR AS signed_url,
    $1:remote_addr::VARCHAR AS remote_addr,
    $1:secret_id::VARCHAR AS secret_id,
    $1:verdict::VARCHAR AS verdict,
    $1:body_key_id::VARCHAR AS body_key_id,
    $1:attributes AS attributes,
    $1:topic::VARCHAR AS topic,
    $1:topic_id::VARCHAR AS topic_id,
    $1:partition::INTEGER AS "partition",
    $1:offset::BIGINT AS "offset",
    $1:schema_version::INTEGER AS schema_version,
    TO_DATE(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'date=', 2), '/', 1)) AS date
FROM @archive/results/ (PATTERN => '.*[.]parquet');

CREATE VIEW outcomes AS
SELECT
    result:source::VARCHAR AS source,
    result:event_id::VARCHAR AS event_id,
    result:delivery_id::VARCHAR AS delivery_id,
    result:operation::VARCHAR AS operation,
    result:definition_sha256::VARCHAR AS definition_sha256,
    result:attempt::INTEGER AS attempt,
    result:outcome::VARCHAR AS outcome,
    result:entity::VARCHAR AS entity,
    result:version::VARCHAR AS version,
    result:rows_affected::BIGINT AS rows_affected,
    STRIP_NULL_VALUE(result:returned) AS returned,
    result:error::VARCHAR AS error,
    TO_TIMESTAMP_NTZ(result:started_at::VARCHAR) AS started_at,
    result:duration_seconds::DOUBLE AS duration_seconds,
    published_at, date
FROM (
    SELECT TRY_PARSE_JSON(TRY_HEX_DECODE_STRING(HEX_ENCODE(body))) AS result, kafka_timestamp AS published_at, date,
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
    SELECT source, event_id, LISTAGG(DISTINCT operation || ' ' || outcome, ', ') WITHIN GROUP (ORDER BY operation || ' ' || outcome) AS results,
        BOOLAND_AGG(outcome IN ('succeeded', 'superseded', 'dead')) AS final
    FROM latest GROUP BY source, event_id
),
by_delivery AS (
    SELECT source, delivery_id, LISTAGG(DISTINCT operation || ' ' || outcome, ', ') WITHIN GROUP (ORDER BY operation || ' ' || outcome) AS results,
        BOOLAND_AGG(outcome IN ('succeeded', 'superseded', 'dead')) AS final
    FROM latest GROUP BY source, delivery_id
),
types AS (
    SELECT e.source, e.type FROM events e JOIN latest l ON l.source = e.source AND l.event_id = e.event_id
    UNION SELECT e.source, e.type FROM events e JOIN latest l ON l.source = e.source AND l.delivery_id = e.delivery_id
)
SELECT e.source, e.event_id, e.type, e.event_time, e.received_at, e.kafka_timestamp, e.delivery_id, e.verdict,
    coalesce(r.results, d.results) AS results, t.source IS NOT NULL AS type_has_results,
    e.topic, e.topic_id, e."partition", e."offset", e.date
FROM events e
LEFT JOIN by_event r ON r.source = e.source AND r.event_id = e.event_id
LEFT JOIN by_delivery d ON d.source = e.source AND d.delivery_id = e.delivery_id AND CONTAINS(e.verdict, 'batch')
LEFT JOIN types t ON t.source = e.source AND t.type IS NOT DISTINCT FROM e.type
WHERE NOT coalesce(r.final, d.final, FALSE)
    AND e.kafka_timestamp < CONVERT_TIMEZONE('UTC', CURRENT_TIMESTAMP())::TIMESTAMP_NTZ - INTERVAL '15 minutes';

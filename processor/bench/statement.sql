WITH input AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::jsonb[], $7::bytea[], $8::bytea[],
        $9::uuid[], $10::text[], $11::text[], $12::bigint[], $13::text[])
        AS t(source, event_id, type, event_time, received_at, headers, body, sha256, delivery_id, order_id, status, amount, currency)
), fresh AS (
    INSERT INTO bare.identities (source, event_id, body_sha256, first_seen_at, delivery_id)
    SELECT source, event_id, sha256, now(), delivery_id FROM input
    ON CONFLICT DO NOTHING RETURNING source, event_id
), bodies AS (
    INSERT INTO bare.bodies (source, event_id, type, event_time, received_at, headers, body, delivery_id)
    SELECT source, event_id, type, event_time, received_at, headers, body, delivery_id FROM input JOIN fresh USING (source, event_id)
), results AS (
    INSERT INTO bare.results (source, event_id, operation, attempt, outcome, started_at)
    SELECT source, event_id, 'order-status', 1, 'succeeded', now() FROM fresh
)
INSERT INTO bare.orders AS o (id, status, amount, currency, updated_at)
SELECT DISTINCT ON (order_id) order_id, status, amount, currency, event_time FROM input JOIN fresh USING (source, event_id)
ORDER BY order_id, event_time DESC
ON CONFLICT (id) DO UPDATE SET status = excluded.status, amount = excluded.amount, currency = excluded.currency, updated_at = excluded.updated_at
WHERE o.updated_at <= excluded.updated_at

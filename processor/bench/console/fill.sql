-- Stores the events from $1 to before $2, of $3 in all, as the processor would have in the last 30 hours: four sources of very
-- different size, types of which some are rare, 15,000 entities, one of 10,000 events and one of a quarter of all, a few that
-- are not done with, and 9,000 dead letters.
WITH e AS (
    SELECT i, s.source, 'evt_' || lpad(i::text, 9, '0') AS id,
        CASE s.source WHEN 'shop' THEN CASE WHEN i % 5000 = 1 THEN 'refund.failed' WHEN i / 10 % 10 < 5 THEN 'order.paid' WHEN i / 10 % 10 < 8 THEN 'order.sent' ELSE 'invoice.paid' END
            WHEN 'bank' THEN CASE WHEN i % 1000 = 8 THEN 'payout.failed' ELSE 'transfer' END ELSE 'contact.changed' END AS type,
        CASE WHEN i % 10000 = 3 THEN 'dead' WHEN i % 10000 = 4 THEN 'failed' WHEN i % 50000 = 5 THEN 'deferred' WHEN i % 3000 = 9 THEN 'unmatched' ELSE 'processed' END AS status,
        CASE WHEN i % greatest($3 / 10000, 1) = 0 THEN 'order-hot' WHEN i % 4 = 1 THEN 'order-most' ELSE 'order-' || (i * 7919 % 20000)::text END AS entity,
        now() - interval '30 hours' * (1 - (i + 1)::float8 / $3) AS at,
        convert_to('{"id": "' || i || '", "amount": ' || i % 997 || ', "text": "' || repeat(md5(i::text), 14) || '"}', 'UTF8') AS body
    FROM generate_series($1::bigint, $2::bigint - 1) AS g(i),
    LATERAL (SELECT CASE WHEN i % 20000 = 11 THEN 'tiny' WHEN i % 10 < 6 THEN 'shop' WHEN i % 10 < 9 THEN 'bank' ELSE 'crm' END) AS s(source)
), d AS MATERIALIZED (
    SELECT e.*, encode(substring(int8send((extract(epoch FROM at) * 1000)::bigint - 50 * (1 + i % 7)) FROM 3) || '\x7000' || substring(uuid_send(gen_random_uuid()) FROM 9), 'hex')::uuid AS delivery FROM e
), b AS (
    INSERT INTO catchment.bodies (source, event_id, type, event_time, received_at, stored_at, status, provider, verdict, secret_id, content_type, headers, body,
        body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch)
    SELECT source, id, type, at - interval '2 s', at - interval '50 ms' * (1 + i % 7), at, status, 'stripe', 'verified', 'k_0123456789ab', 'application/json',
        '{"content-type": ["application/json"], "stripe-signature": ["t=1795000000,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd"]}',
        body, sha256(body), delivery, 0, 'catchment.events', '01000000-0000-0000-0000-000000000000', (i % 12)::integer, i / 12, 0
    FROM d ORDER BY i RETURNING source, event_id, body_sha256, stored_at, delivery_id
), r AS (
    INSERT INTO catchment.results (source, event_id, delivery_id, operation, definition_sha256, attempt, outcome, entity, version, rows_affected, started_at, duration)
    SELECT source, id, delivery, 'order-status', '\x02', 1, CASE status WHEN 'processed' THEN 'succeeded' ELSE status END, entity, at::text, 1, at, interval '1 ms'
    FROM d WHERE status <> 'unmatched'
), l AS (
    INSERT INTO catchment.dead_letters (source, event_id, operation, reason, error, attempts, first_failed_at, last_failed_at, topic, topic_id, partition, "offset")
    SELECT source, id, 'order-status', 'attempts used up', 'no such customer', 10, at, at, 'catchment.events', '01000000-0000-0000-0000-000000000000', (i % 12)::integer, i / 12
    FROM d WHERE i % greatest($3 / 9000, 1) = 3
)
INSERT INTO catchment.identities (source, event_id, body_sha256, first_seen_at, delivery_id)
SELECT source, event_id, body_sha256, stored_at, delivery_id FROM b

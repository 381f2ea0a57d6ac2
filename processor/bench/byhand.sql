-- What one event's transaction does by hand: is it new, and then one row after the other.
INSERT INTO bare.identities VALUES ($1, $2, $3, now(), $4) ON CONFLICT DO NOTHING;

INSERT INTO bare.bodies (source, event_id, type, event_time, received_at, headers, body, delivery_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

INSERT INTO bare.results VALUES ($1, $2, 'order-status', 1, 'succeeded', now());

INSERT INTO bare.orders AS o (id, status, amount, currency, updated_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, amount = excluded.amount, currency = excluded.currency, updated_at = excluded.updated_at
WHERE o.updated_at <= excluded.updated_at;

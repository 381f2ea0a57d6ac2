-- +goose Up

-- A provider may change members of the body between retries of one event (Stripe's pending_webhooks). Such a delivery is a
-- repetition; body_sha256 is what its bytes come to. Null: they are the event's own.
ALTER TABLE catchment.duplicates ADD COLUMN body_sha256 bytea;

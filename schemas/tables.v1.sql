-- What readers may rely on in the schema catchment: these relations and columns stay. The processor owns the
-- schema and makes it (catchment migrate); this file is generated from its migrations and loads into an empty database.

CREATE SCHEMA catchment;

-- a view
CREATE TABLE catchment.events (
    source text,
    event_id text,
    type text,
    event_time timestamp with time zone,
    received_at timestamp with time zone,
    stored_at timestamp with time zone,
    status text,
    secret_id text,
    content_type text,
    headers jsonb,
    body bytea,
    body_sha256 bytea,
    delivery_id uuid,
    delivery_index integer,
    topic text,
    topic_id uuid,
    partition integer,
    "offset" bigint,
    deliveries integer
);

CREATE TABLE catchment.identities (
    source text NOT NULL,
    event_id text NOT NULL,
    body_sha256 bytea NOT NULL,
    first_seen_at timestamp with time zone NOT NULL,
    delivery_id uuid NOT NULL
);

CREATE TABLE catchment.results (
    source text NOT NULL,
    event_id text NOT NULL,
    delivery_id uuid NOT NULL,
    operation text NOT NULL,
    definition_sha256 bytea NOT NULL,
    attempt integer NOT NULL,
    outcome text NOT NULL,
    entity text,
    version text,
    rows_affected bigint,
    returned jsonb,
    error text,
    started_at timestamp with time zone NOT NULL,
    duration interval NOT NULL
);

CREATE TABLE catchment.conflicts (
    source text NOT NULL,
    event_id text NOT NULL,
    delivery_id uuid NOT NULL,
    received_at timestamp with time zone NOT NULL,
    body bytea NOT NULL,
    body_sha256 bytea NOT NULL,
    headers jsonb NOT NULL,
    topic text NOT NULL,
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    delivery_index integer NOT NULL
);

CREATE TABLE catchment.dead_letters (
    id bigint NOT NULL,
    source text,
    event_id text,
    operation text,
    reason text NOT NULL,
    error text NOT NULL,
    attempts integer NOT NULL,
    first_failed_at timestamp with time zone NOT NULL,
    last_failed_at timestamp with time zone NOT NULL,
    topic text NOT NULL,
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key bytea,
    headers jsonb,
    value bytea
);

CREATE TABLE catchment.progress (
    topic text NOT NULL,
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    leader_epoch integer NOT NULL,
    owner uuid NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE catchment.definitions (
    sha256 bytea NOT NULL,
    name text NOT NULL,
    definition jsonb NOT NULL,
    first_used_at timestamp with time zone NOT NULL
);

CREATE TABLE catchment.actions (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    actor text NOT NULL,
    command text NOT NULL,
    reason text NOT NULL,
    selection jsonb NOT NULL,
    affected bigint NOT NULL
);

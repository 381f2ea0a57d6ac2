package workload

// Tables makes the users' tables of a run. The ledger has no unique key and the counter is counted up, so that nothing hides an
// effect that came twice; the history notes every write of a state in the order of its row's lock.
const Tables = `
CREATE TABLE IF NOT EXISTS prove_ledger (source text NOT NULL, event_id text NOT NULL, entity text NOT NULL, delivery_id uuid, ratio bigint, note text);
CREATE TABLE IF NOT EXISTS prove_counters (entity text PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE IF NOT EXISTS prove_state (entity text PRIMARY KEY, version bigint NOT NULL, event_id text NOT NULL);
CREATE TABLE IF NOT EXISTS prove_history (number bigint GENERATED ALWAYS AS IDENTITY, entity text NOT NULL, version bigint NOT NULL, event_id text NOT NULL);
CREATE OR REPLACE FUNCTION prove_remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO prove_history (entity, version, event_id) VALUES (NEW.entity, NEW.version, NEW.event_id);
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER prove_remember AFTER INSERT OR UPDATE ON prove_state FOR EACH ROW EXECUTE FUNCTION prove_remember();
`

// operations are those of one source. No statement guards itself: that is Catchment's to do.
const operations = `
  - name: SOURCE-ledger
    on: {source: SOURCE, types: [CHANGE]}
    entity: BODY.entity
    sql:
      - INSERT INTO prove_ledger (source, event_id, entity, delivery_id) VALUES (@source, @id, @entity, @delivery_id)
      - INSERT INTO prove_counters (entity, n) VALUES (@entity, 1) ON CONFLICT (entity) DO UPDATE SET n = prove_counters.n + 1
  - name: SOURCE-state
    on: {source: SOURCE, types: [CHANGE]}
    entity: BODY.entity
    version: BODY.version
    guard: prove-state
    sql: |
      INSERT INTO prove_state (entity, version, event_id) VALUES (@entity, @revision, @id)
      ON CONFLICT (entity) DO UPDATE SET version = excluded.version, event_id = excluded.event_id
    params: {revision: BODY.version}
  - name: SOURCE-poison
    on: {source: SOURCE, types: [POISON]}
    sql: INSERT INTO prove_ledger (source, event_id, entity, ratio, note) VALUES (@source, @id, 'poison', 1 / @zero::bigint, @note)
    params: {zero: BODY.zero, note: BODY.note}
`

"""Reads an archive with DuckDB, as an analyst would, and checks what can be checked from outside.

usage: read_archive.py FOLDER EVENTS BODY        (needs: pip install duckdb pytz)

EVENTS is how many events of the sources with a signature there are, BODY is a file that was sent as one of them, once.
"""

import hashlib
import sys

import duckdb

folder, wanted = sys.argv[1], int(sys.argv[2])
with open(sys.argv[3], "rb") as file:
    sent = file.read()
archive = f"read_parquet('{folder}/events/**/*.parquet', hive_partitioning = true)"


def one(query):
    return duckdb.sql(query).fetchall()[0]


rows, events, deliveries, sources = one(
    f"SELECT count(*), count(DISTINCT (source, event_id)), count(DISTINCT delivery_id), count(DISTINCT source) FROM {archive}"
)
print(f"{rows} rows, {events} events of {sources} sources")
assert deliveries == rows, "one row a delivery"
signed_rows, signed_events = one(f"SELECT count(*), count(DISTINCT (source, event_id)) FROM {archive} WHERE provider <> 'none'")
assert signed_rows == signed_events == wanted, f"want {wanted} rows: what was answered as a duplicate is none, found {signed_rows} of {signed_events} events"
assert duckdb.execute(f"SELECT count(*) FROM {archive} WHERE body = ?", [sent]).fetchall() == [(1,)], "a body is not what was sent"

for body, digest in duckdb.sql(f"SELECT body, body_sha256 FROM {archive}").fetchall():
    digest = bytes.fromhex(digest) if isinstance(digest, str) else bytes(digest)
    assert hashlib.sha256(bytes(body)).digest() == digest, "a body is not what its digest says"

gaps = one(f"""
    SELECT count(*) FROM (
        SELECT "offset" - lag("offset") OVER (PARTITION BY topic_id, partition ORDER BY "offset") AS step FROM {archive})
    WHERE step <> 1
""")[0]
assert gaps == 0, f"{gaps} gaps or overlaps"
wrong_day = one(f"SELECT count(*) FROM {archive} WHERE CAST(kafka_timestamp AT TIME ZONE 'UTC' AS DATE) <> CAST(date AS DATE)")[0]
assert wrong_day == 0, f"{wrong_day} rows in another day's folder"
print(duckdb.sql(f"""
    SELECT source, type, count(*) AS deliveries, min(octet_length(body)) AS least, max(octet_length(body)) AS most
    FROM {archive} GROUP BY ALL ORDER BY ALL LIMIT 12
"""))
print("the archive is whole")

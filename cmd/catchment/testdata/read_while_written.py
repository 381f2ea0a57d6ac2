"""Counts what a plain pattern finds in an archive, again and again, until standard input ends, and once more. A line a reading:
of deliveries and of results each the rows, the rows by their places, and the rows whose body is not that of its digest."""
import json, os, select, sys, time

import duckdb
import duckdb_extension_httpfs as httpfs

at = json.loads(sys.argv[1])
c = duckdb.connect()
c.execute("SET threads = 1")
c.execute(f"LOAD '{os.path.join(httpfs.__path__[0], 'extensions', 'v' + duckdb.__version__, 'httpfs.duckdb_extension')}'")
c.execute(f"CREATE SECRET (TYPE s3, KEY_ID '{at['key']}', SECRET '{at['secret']}', REGION '{at['region']}', ENDPOINT '{at['endpoint']}', URL_STYLE 'path', USE_SSL false)")


def read():
    line = []
    for kind in "events", "results":
        pattern = f"s3://{at['bucket']}/{kind}/**/*.parquet"
        if not c.execute("SELECT count(*) FROM glob(?)", [pattern]).fetchone()[0]:
            line += [0, 0, 0]
            continue
        line += c.execute(f"""SELECT count(*), count(DISTINCT (topic, topic_id, partition, "offset")),
            count(*) FILTER (WHERE sha256(body) <> lower(hex(body_sha256))) FROM '{pattern}'""").fetchone()
    print(*line, flush=True)


pause = 1
while not select.select([sys.stdin], [], [], pause)[0]:
    began = time.monotonic()
    read()
    pause = 1 + 2 * (time.monotonic() - began)  # others have work to do
read()

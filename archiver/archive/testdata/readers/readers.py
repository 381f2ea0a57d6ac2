"""Reads an archive as others do, for readers_test.go.

readers.py values READER FILE…   every row of the files as one line of JSON; READER is duckdb, pyarrow, pandas, polars or spark
readers.py sql                   runs {"root": …, "blocks": […]} from standard input in one DuckDB; .read names a file below root
readers.py parse DIALECT FILE…   reads SQL in the dialect of an engine that is not here; prints how many statements there are
"""

import contextlib
import datetime
import decimal
import hashlib
import io
import json
import os
import sys


def plain(value):
    """The value as JSON has it: times in microseconds or as ISO texts, bytes in hex."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def micros(value):
    if value is None or value != value:
        return None
    since = value - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds


def entries(value):
    """A map, as a dictionary, a list of pairs or a list of structs."""
    if isinstance(value, dict):
        value = value.items()
    return [list(e.values()) if isinstance(e, dict) else list(e) for e in value]


def row(columns):
    """A row in the form that the test compares; of a body its length and digest."""
    out = {}
    for name, value in columns.items():
        if name in ("event_time", "received_at", "kafka_timestamp"):
            out[name] = micros(value)
        elif name == "headers":
            out[name] = sorted([k, [str(v) for v in vs]] for k, vs in entries(value))
        elif name == "attributes":
            out[name] = sorted(entries(value))
        elif name == "body":
            out[name] = [len(value), hashlib.sha256(bytes(value)).hexdigest()]
        elif name == "body_sha256":
            out[name] = bytes(value).hex()
        elif name in ("partition", "offset", "schema_version"):
            out[name] = int(value)
        else:
            out[name] = None if value is None or value != value else str(value)
    return out


def duckdb_rows(files):
    import duckdb

    c = duckdb.connect()
    for file in files:
        found = c.execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [file])
        names = [d[0] for d in found.description]
        yield from (dict(zip(names, values)) for values in found.fetchall())


def pyarrow_rows(files):
    import pyarrow.parquet as pq

    for file in files:
        yield from pq.ParquetFile(file).read().to_pylist()


def pandas_rows(files):
    import pandas

    for file in files:
        with open(file, "rb") as f:
            yield from pandas.read_parquet(io.BytesIO(f.read())).to_dict("records")


def polars_rows(files):
    import polars

    for file in files:
        yield from polars.read_parquet(file, hive_partitioning=False).to_dicts()


def spark_rows(files):
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").config("spark.sql.session.timeZone", "UTC").getOrCreate()
    for file in files:
        for r in spark.read.parquet("file://" + os.path.abspath(file)).collect():
            columns = r.asDict()
            for name in ("event_time", "received_at", "kafka_timestamp"):
                if columns[name] is not None:  # Spark's Python gives local times
                    columns[name] = columns[name].astimezone(datetime.timezone.utc)
            yield columns


def values(reader, files):
    for columns in globals()[reader + "_rows"](files):
        print(json.dumps(row(columns), sort_keys=True, ensure_ascii=False))


def sql():
    import duckdb

    asked = json.load(sys.stdin)
    c = duckdb.connect()
    c.execute("SET TimeZone = 'UTC'")
    c.execute("SET memory_limit = '1GB'")
    for block in asked["blocks"]:
        answer = {}
        try:
            if block["python"]:
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(block["text"], {})
                answer = {"printed": out.getvalue()}
            else:
                answer = run(c, block["text"], asked["root"])
        except Exception as e:
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer))


def run(c, text, root):
    statements = []
    for line in text.splitlines():
        if line.startswith(".read "):
            with open(os.path.join(root, line.removeprefix(".read ").strip())) as file:
                line = file.read()
        statements.append(line)
    found = c.execute("\n".join(statements))
    return {"columns": [d[0] for d in found.description], "rows": plain(found.fetchall())}


def parse(dialect, files):
    import sqlglot
    from sqlglot import exp

    for file in files:
        with open(file) as f:
            trees = [t for t in sqlglot.parse(f.read(), dialect=dialect, error_level=sqlglot.ErrorLevel.RAISE) if t is not None]
        for tree in trees:
            if isinstance(tree, exp.Command):  # what sqlglot passes on without reading it
                sys.exit(f"{file}: not understood: {tree.sql()[:200]}")
        print(len(trees))


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    {"values": lambda a: values(a[0], a[1:]), "sql": lambda a: sql(), "parse": lambda a: parse(a[0], a[1:])}[sys.argv[1]](sys.argv[2:])

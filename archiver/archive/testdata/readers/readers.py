"""Reads an archive as others do, for readers_test.go.

readers.py values READER FILE…   every row of the files as one line of JSON; READER is duckdb, pyarrow, pandas, polars or spark
readers.py sql                   runs {"root": …, "blocks": […]} from standard input in one DuckDB; .read names a file below root
readers.py columns DIALECT FILE  the columns of the views of an engine that is not here
readers.py answers DIALECT FILE  the rows of the views over the archive in this folder; DIALECT is duckdb, trino or snowflake. With
                                 {"archive": …, "key": …, "secret": …, "endpoint": …, "region": …} behind it: over that one in S3
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


class Foreign:
    """The views of an engine that is not here, read by sqlglot: what they are of, and what their columns are."""

    def __init__(self, dialect, file):
        import sqlglot
        from sqlglot.dialects.dialect import Dialect
        from sqlglot.schema import MappingSchema

        self.dialect, self.rules = dialect, Dialect.get_or_raise(dialect)
        self.known = MappingSchema(dialect=dialect, normalize=False)
        with open(file) as f:
            trees = [t for t in sqlglot.parse(f.read(), dialect=dialect, error_level=sqlglot.ErrorLevel.RAISE) if t is not None]
        self.made = [self.read(tree) for tree in trees]  # (name, kind, columns with their types, tree)

    def name(self, identifier):
        return self.rules.normalize_identifier(identifier.copy())

    def read(self, tree):
        from sqlglot import exp
        from sqlglot.optimizer.qualify import qualify

        if not isinstance(tree, exp.Create):  # a Command is what sqlglot passes on without reading it
            sys.exit(f"not understood: {tree.sql()[:200]}")
        name, query = self.name(tree.find(exp.Table).this), tree.expression
        if isinstance(tree.this, exp.Schema):
            kind, columns = "table", [(self.name(c.this).name, c.kind.sql(self.dialect)) for c in tree.this.expressions]
        elif "@" in query.args["from_"].this.sql(self.dialect):
            kind, columns = "stage", [(self.name(p.args["alias"]).name, p.this.to.sql(self.dialect) if isinstance(p.this, exp.Cast) else "") for p in query.selects]
        else:  # fails where a column is named that its tables do not have
            kind, columns = "view", [(n, "") for n in qualify(query.copy(), schema=self.known, dialect=self.dialect, quote_identifiers=False).named_selects]
        self.known.add_table(exp.Table(this=name), {n: t or "VARCHAR" for n, t in columns}, dialect=self.dialect, normalize=False)
        return name.name.lower(), kind, [(n.lower(), t) for n, t in columns], tree

    def duckdb(self, name, kind, columns, tree):
        """The same for DuckDB, with the files in the place of external tables and stages."""
        from sqlglot import exp

        files = "results" if name == "result_files" else "events"
        files = f"read_parquet(getvariable('archive') || '/{files}/date=*/*.parquet', hive_partitioning = {kind == 'table'}, filename = true)"
        if kind == "table":
            return f"CREATE VIEW {name} AS SELECT " + ", ".join(f'"{n}"' for n, _ in columns) + f" FROM {files}"
        query = tree.expression.transform(self.column)
        if kind == "stage":
            query.set("from_", exp.From(this=exp.Table(this=exp.to_identifier("files"))))
            return f"CREATE VIEW {name} AS WITH files AS (SELECT * FROM {files}) " + query.sql("duckdb").replace("METADATA$FILENAME", "filename")
        return f"CREATE VIEW {name} AS " + query.sql("duckdb")

    def column(self, node):
        """Snowflake's $1:name is a column of the file, and value:name::VARCHAR is a text without quotes."""
        from sqlglot import exp

        if self.dialect != "snowflake":
            return node
        if isinstance(node, exp.JSONExtract) and isinstance(node.this, exp.Parameter):
            return exp.column(node.expression.expressions[-1].this, quoted=True)
        if isinstance(node, exp.Cast) and isinstance(node.this, exp.JSONExtract) and not isinstance(node.this.this, exp.Parameter):
            return exp.cast(exp.JSONExtractScalar(this=node.this.this, expression=node.this.expression), node.to)
        return node


# Of Snowflake, in DuckDB.
MACROS = """
CREATE MACRO try_hex_decode_string(x) AS TRY(decode(unhex(x)));
CREATE MACRO strip_null_value(x) AS nullif(x, 'null');
CREATE MACRO to_timestamp_ntz(x) AS CAST(CAST(x AS TIMESTAMPTZ) AS TIMESTAMP);
"""


def columns(dialect, file):
    """The columns of each table and view."""
    for name, kind, found, _ in Foreign(dialect, file).made:
        print(json.dumps({"name": name, "kind": kind, "columns": found}))


def answers(dialect, file, s3=None):
    """All rows of each view over the archive in this folder, in DuckDB; another engine's views are translated first."""
    import duckdb

    c = duckdb.connect()
    c.execute("SET TimeZone = 'UTC'")
    c.execute(f"SET VARIABLE archive = '{in_s3(c, json.loads(s3)) if s3 else os.getcwd()}'")
    if dialect == "duckdb":
        with open(file) as f:
            c.execute(f.read())
    else:
        c.execute(MACROS)
        foreign = Foreign(dialect, file)
        for made in foreign.made:
            c.execute(foreign.duckdb(*made))
    for view in ("deliveries", "events", "outcomes", "conflicts", "unprocessed"):
        found = c.execute(f"SELECT * REPLACE ({'sha256(body) AS body' if view in ('deliveries', 'events', 'conflicts') else 'source AS source'}) FROM {view}")
        names = [d[0].lower() for d in found.description]
        rows = [dict(zip(names, map(naive, row))) for row in found.fetchall()]
        for line in sorted(json.dumps(plain(r), sort_keys=True) for r in rows):
            print(view, line)


def in_s3(c, at):
    """Gives DuckDB its extension, which is checked by DuckDB's own signature, and the keys; returns where the archive is."""
    import duckdb
    import duckdb_extension_httpfs as httpfs

    c.execute(f"LOAD '{os.path.join(httpfs.__path__[0], 'extensions', 'v' + duckdb.__version__, 'httpfs.duckdb_extension')}'")
    c.execute(f"CREATE SECRET (TYPE s3, KEY_ID '{at['key']}', SECRET '{at['secret']}', REGION '{at['region']}', ENDPOINT '{at['endpoint']}', URL_STYLE 'path', USE_SSL false)")
    return at["archive"]


def naive(value):
    """A time in UTC, whether the engine's type has a zone or not; a map in the order of its keys."""
    if isinstance(value, datetime.datetime) and value.tzinfo:
        return value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    if isinstance(value, dict):
        return {k: value[k] for k in sorted(value)}
    return value


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    {"values": lambda a: values(a[0], a[1:]), "sql": lambda a: sql(), "columns": lambda a: columns(*a), "answers": lambda a: answers(*a)}[sys.argv[1]](sys.argv[2:])

"""Looks for events by their IDs with DuckDB, in archives that are named on standard input; prints milliseconds for one."""

import json
import random
import statistics
import sys
import time

import duckdb

asked = json.load(sys.stdin)
with open(asked["views"]) as file:
    views = file.read()


def look(c, event_id, want):
    at = time.perf_counter()
    found = c.execute("SELECT body FROM deliveries WHERE event_id = ?", [event_id]).fetchall()
    took = time.perf_counter() - at
    assert len(found) == want, f"{event_id}: {len(found)} rows"
    return took * 1000


connections = {}
for name, root in asked["archives"].items():
    c = connections[name] = duckdb.connect()
    c.execute("SET threads = 2")
    c.execute(f"SET VARIABLE archive = '{root}'")
    c.execute(views)
    look(c, asked["ids"][0], 1)  # the files' pages are in memory
out = []
for _ in range(asked["rounds"]):
    names = list(connections)
    random.shuffle(names)
    for name in names:
        c = connections[name]
        present = [look(c, event_id, 1) for event_id in asked["ids"]]
        absent = [look(c, event_id[:-1] + "~", 0) for event_id in asked["ids"]]
        out.append({"archive": name, "present": statistics.median(present), "absent": statistics.median(absent)})
print(json.dumps(out))

"""A whole Catchment on this machine, `catchment up`, with users of the console and data for its pages to show."""

import glob
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

PASSWORD = "correct horse battery"
ROLES = {
    "nobody": [],
    "viewer": ["view-metadata"],
    "reader": ["view-metadata", "view-payload"],
    "operator": ["view-metadata", "operate"],
    "ada": ["view-metadata", "view-payload", "operate"],
}
HMAC_SECRET = "a secret for the browser test"

# It breaks out of text, attributes, scripts, comments, URLs and templates, where something lets it.
POLYGLOT = (
    "jaVasCript:/*-/*`/*\\`/*'/*\"/**/(/* */oNcliCk=alert(1) )//</stYle/</titLe/</teXtarEa/</scRipt/--!>"
    "<sVg/<sVg/oNloAd=alert(1)//><img src=x onerror=alert(1)>{{7*7}}${7*7}<a href=javascript:alert(1)>&lt;b&gt;"
)

CONFIG = """
  - name: small-orders                    # refused by a constraint that the test makes and drops
    on: {source: partner, types: [order]}
    sql: INSERT INTO orders (id, status, amount) VALUES (@id, 'new', @amount) ON CONFLICT (id) DO UPDATE SET status = 'again', amount = excluded.amount RETURNING *
    params: {amount: body.amount}
    retry: {max_attempts: 1}
  - name: numbers                         # its error says what stands in the body
    on: {source: partner, types: ["*"]}
    when: has(body.number)
    entity: body.id
    sql: SELECT @number::text::integer
    params: {number: body.number}
    retry: {max_attempts: 1}

console:
  users:
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Node:
    def __init__(self, program, folder):
        self.program, self.folder = os.path.realpath(program), folder
        self.home = os.path.join(folder, "node")
        os.mkdir(self.home)
        self.listen, self.ops = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.log = open(os.path.join(folder, "up.log"), "ab")
        self.process = None

    def tool(self, *args, stdin=""):
        done = subprocess.run([self.program, *args], cwd=self.home, input=stdin, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"{args}: {done.stderr}")
        return done.stdout

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "up", "--dir", self.home, "--listen", self.listen, "--ops-listen", self.ops],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
        )
        self.until("up is ready", lambda: self.get("/readyz") == 200, 300)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(120)

    def get(self, path):
        if self.process.poll() is not None:
            raise AssertionError("up has ended:\n" + open(self.log.name).read()[-3000:])
        try:
            with urllib.request.urlopen(f"http://{self.ops}{path}", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def until(self, what, condition, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {what}")
            time.sleep(0.2)

    def configure(self):
        """Adds users, a source and operations to what the first start has written."""
        path = os.path.join(self.home, "catchment.yaml")
        text = open(path).read()
        self.database = re.search(r'url: "(postgres:[^"]*)"', text).group(1)
        source = f'  partner: {{provider: hmac, hmac: {{header: X-Signature}}, event_id: body.id, event_type: body.kind, secrets: [{{id: "2026-q4", value: "{HMAC_SECRET}"}}]}}\n'
        text = re.sub(r"\nsources:\n", "\nsources:\n" + source, text)
        digest = json.loads(self.tool("console", "hash-password", "--output", "json", stdin=PASSWORD + "\n"))["password"]
        users = "".join(f'    - {{name: {name}, password: "{digest}", roles: [{", ".join(roles)}]}}\n' for name, roles in ROLES.items())
        with open(path, "w") as file:
            file.write(text + CONFIG + users)

    def post(self, body, headers=None):
        """Sends one signed delivery of the source partner."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        signature = hmac.new(HMAC_SECRET.encode(), body, hashlib.sha256).hexdigest()
        request = urllib.request.Request(
            f"http://{self.listen}/webhooks/partner", body, {"Content-Type": "application/json", "X-Signature": signature, **(headers or {})}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status

    def sql(self, text, *args):
        """Runs a statement, or returns one value; :1, :2 … stand for the arguments."""
        psql = shutil.which("psql") or sorted(glob.glob("/usr/lib/postgresql/*/bin/psql"))[-1]
        command = [psql, self.database, "-AtqX", "-v", "ON_ERROR_STOP=1"]
        for i, arg in enumerate(args, 1):
            command += ["-v", f"a{i}={arg}"]
        text = re.sub(r":(\d+)", r":'a\1'", text)
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(done.stderr)
        return done.stdout.strip()

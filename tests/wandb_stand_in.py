"""A local stand-in for the W&B server: takes what `wandb sync` and online runs send, keeps it in memory.

It answers the few GraphQL queries of the pinned client that lie on the way of runs and artifacts, and takes uploads.
"""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

API_KEY = "a" * 40


@dataclass
class Run:
    """What the server knows of one run."""

    attributes: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    history: dict = field(default_factory=dict)  # line number -> row
    summary: dict = field(default_factory=dict)
    uploads: set = field(default_factory=set)


class Server(ThreadingHTTPServer):
    """Runs by id, names of artifacts with their files, and the queries that could not be answered."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs = defaultdict(Run)
        self.artifacts = defaultdict(list)
        self.unknown = []

    @property
    def environment(self):
        """Variables that point a client here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": API_KEY, "WANDB_MODE": "online"}

    def sync(self, *folders):
        """Upload offline runs with W&B's own command."""
        command = [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)]
        mine = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        done = subprocess.run(
            command, env={**mine, **self.environment}, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0 and "Finished syncing" in done.stdout + done.stderr, done.stdout + done.stderr

    def answer(self, operation, variables):
        """The `data` of a GraphQL answer."""
        known = getattr(self, f"on_{operation}", None)
        if known is None:
            self.unknown.append((operation, variables))
            return {}
        return known(variables)

    def on_Viewer(self, variables):
        return {"viewer": {"id": "1", "entity": "team", "username": "user", "flags": "{}", "teams": {"edges": []}}}

    def on_ServerFeaturesQuery(self, variables):
        return {"serverInfo": {"features": []}}

    def on_RunResumeStatus(self, variables):
        name = variables["name"]
        if name not in self.runs:
            return {"model": None}
        run = self.runs[name]
        tail = json.dumps([json.dumps(run.history[max(run.history)])] if run.history else [])
        bucket = {"id": name, "name": name, "summaryMetrics": json.dumps(run.summary), "displayName": name, "tags": []}
        bucket |= {"logLineCount": 0, "historyLineCount": len(run.history), "eventsLineCount": 0, "historyTail": tail}
        bucket |= {
            "eventsTail": "[]",
            "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
            "notes": None,
        }
        bucket |= {"wandbConfig": json.dumps({"t": 1})}
        return {"model": {"id": "1", "name": "project", "entity": {"id": "1", "name": "team"}, "bucket": bucket}}

    def on_UpsertBucket(self, variables):
        name = variables["name"]
        inserted = name not in self.runs
        run = self.runs[name]
        run.attributes |= {key: value for key, value in variables.items() if value is not None}
        run.config |= {key: entry["value"] for key, entry in json.loads(variables.get("config") or "{}").items()}
        project = {"id": "1", "name": variables["project"], "entity": {"id": "1", "name": "team"}}
        bucket = {"id": name, "name": name, "displayName": None, "description": None, "config": "{}"}
        bucket |= {"sweepName": None, "historyLineCount": len(run.history), "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_CreateRunFiles(self, variables):
        files = [{"name": name, "uploadUrl": self.place(variables["run"], name)} for name in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def on_CreateArtifact(self, variables):
        name = variables["input"]["artifactCollectionName"]
        artifact = {"id": name, "state": "PENDING", "artifactSequence": {"id": "1", "latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def on_CreateArtifactManifest(self, variables):
        return {"createArtifactManifest": {"artifactManifest": self.manifest(variables["artifactID"])}}

    def on_UpdateArtifactManifest(self, variables):
        return {"updateArtifactManifest": {"artifactManifest": self.manifest(variables["artifactManifestID"])}}

    def on_CreateArtifactFiles(self, variables):
        nodes = []
        for asked in variables["input"]["artifactFiles"]:
            self.artifacts[asked["artifactID"]].append(asked["name"])
            node = {"id": asked["name"], "name": asked["name"], "displayName": asked["name"], "uploadHeaders": []}
            node |= {"uploadUrl": self.place(asked["artifactID"], asked["name"]), "storagePath": asked["name"]}
            nodes.append({"node": {**node, "artifact": {"id": asked["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def on_CommitArtifact(self, variables):
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "0"}}}

    def manifest(self, artifact):
        """Where an artifact's list of files is to be put."""
        name = "wandb_manifest.json"
        place = {"id": name, "name": name, "displayName": name, "uploadHeaders": []}
        return {"id": artifact, "file": {**place, "uploadUrl": self.place(artifact, name)}}

    def place(self, owner, name):
        """Where a file is to be put."""
        return f"{self.url}/upload/{owner}/{name}"

    def stream(self, name, files):
        """What a running or synced run sends line by line."""
        run = self.runs[name]
        history = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
        for number, line in enumerate(history["content"], history["offset"]):
            run.history[number] = json.loads(line)
        for line in files.get("wandb-summary.json", {"content": []})["content"]:
            run.summary |= json.loads(line)


class Handler(BaseHTTPRequestHandler):
    """HTTP around `Server`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply({})

    def do_PUT(self):
        self.body()
        owner, name = self.path.removeprefix("/upload/").split("/", 1)
        self.server.runs[owner].uploads.add(name)
        self.reply({})

    def do_POST(self):
        body = self.body()
        if self.path == "/graphql":
            query = json.loads(body)
            self.reply({"data": self.server.answer(query.get("operationName"), query.get("variables"))})
        elif self.path.endswith("/file_stream"):
            self.server.stream(self.path.split("/")[-2], json.loads(body).get("files", {}))
            self.reply({})
        else:
            self.reply({})

    def body(self):
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        return gzip.decompress(content) if self.headers.get("content-encoding") == "gzip" else content

    def reply(self, answer):
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle(self):
        with suppress(ConnectionResetError):  # clients leave without a word
            super().handle()

    def log_message(self, *_):
        """Be quiet."""


@contextmanager
def serving():
    """A server on a free port."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()

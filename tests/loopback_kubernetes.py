"""As much of Kubernetes' API as Snakemake's executor uses, over HTTP on loopback; the pods are processes here.

A job's container runs in an empty folder with the volume's path as it is, so the submission, the deployment of the
sources, the way of the files and the place of the work folders are tried; scheduling, images and mounts are not.
"""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: loopback, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: me, user: {{}}}}]
contexts: [{{name: loopback, context: {{cluster: loopback, user: me}}}}]
current-context: loopback
"""


class Cluster:
    """Started with its kubeconfig in `folder`; `jobs` has every job that was submitted, by name.

    Args:
        environment: of the containers, which stands for what their image has.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, subprocess.Popen] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": self}))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(KUBECONFIG.format(port=self.server.server_port))

    def submit(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        workdir = self.folder / name
        workdir.mkdir()
        self.jobs[name] = job
        with self.log(name).open("w") as log:
            command = [*container["command"], *container["args"]]
            self.pods[name] = subprocess.Popen(
                command, cwd=workdir, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def status(self, name: str) -> dict[str, int]:
        code = self.pods[name].poll()
        return {"active": 1} if code is None else {"failed": 1} if code else {"succeeded": 1}

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for pod in self.pods.values():
            pod.kill()


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/jobs"):
            self.cluster.submit(body)
        self.answer(body)

    def do_GET(self) -> None:
        *_, kind, name, what = self.path.split("/")
        if what == "status" and kind == "jobs":
            self.answer(self.cluster.jobs[name] | {"status": self.cluster.status(name)})
        else:
            self.answer({"items": []})

    def do_DELETE(self) -> None:
        self.answer({"status": "Success"})

    def answer(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass

"""deploy/compose.yaml as a project of docker compose, with images that are made here instead of a registry's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.containers import docker
from tests.support.machine_image import servers_image

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
SECRETS = {
    "POSTGRES_PASSWORD": "p",
    "REDIS_PASSWORD": "r",
    "S3_PASSWORD": "secret-of-s3",
    "GRAFANA_PASSWORD": "g",
    "FN_ADMIN_TOKEN": "token-of-the-admin",
    "FN_RUNNER_TOKEN": "token-of-the-fleet",
}
_COMPOSE = Path(sys.executable).with_name("docker-compose")
#: What the entrypoint of the usual image does: a cluster for this user and password, at the first start only.
_POSTGRES = """
data=/var/lib/postgresql/data
if [ ! -e $$data/PG_VERSION ]; then
    echo "$$POSTGRES_PASSWORD" >/tmp/password
    initdb -D $$data -U "$$POSTGRES_USER" --pwfile=/tmp/password --locale=C --encoding=UTF8 --auth=scram-sha-256
    echo 'host all all all scram-sha-256' >>$$data/pg_hba.conf
    echo "create database $$POSTGRES_DB" | postgres --single -D $$data postgres
fi
exec postgres -D $$data -c listen_addresses='*' -c unix_socket_directories=/tmp
"""
_S3 = """
exec rclone serve s3 --config=/tmp/none --cache-dir=/tmp/cache --addr=:9000 \
    --auth-key="$$MINIO_ROOT_USER,$$MINIO_ROOT_PASSWORD" /data
"""


class Project:
    """The services of compose files, under a name."""

    def __init__(self, name: str, files: list[Path], environment: dict[str, str]) -> None:
        self.name = name
        self.command = [str(_COMPOSE), "--project-name", name, *[f"--file={file}" for file in files]]
        self.environment = {**os.environ, **environment}

    def run(self, *arguments: str) -> str:
        """One command of compose; its output."""
        done = subprocess.run([*self.command, *arguments], env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stderr[-3000:]}{self._logs(arguments[0])}"
        return done.stdout

    def _logs(self, verb: str) -> str:
        """What the services said, where one of them may be to blame."""
        if verb != "up":
            return ""
        command = [*self.command, "logs", "--no-color", "--tail=40"]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout[-8000:]


def project(name: str, folder: Path, image: str) -> Project:
    """The shipped file. Where the usual images have an entrypoint, ours have a command that does the same."""
    base = servers_image()
    metrics = ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
    balancer = ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
    services: dict[str, dict[str, Any]] = {
        "db": {"image": base, "user": "999:999", "command": ["sh", "-ec", _POSTGRES]},
        "redis": {"image": base, "working_dir": "/data"},
        "s3": {"image": base, "command": ["sh", "-ec", _S3]},
        "prometheus": {"image": base, "command": metrics},
        "lb": {"image": base, "command": balancer},
    }
    for node in ("api", "runner-1", "runner-2"):
        services[node] = {"healthcheck": {"interval": "1s"}}  # the image's check, but not every ten seconds
    override = folder / "override.yaml"
    override.write_text(json.dumps({"services": services}))  # which is YAML, too
    environment = {
        **SECRETS,
        "HEARTH_IMAGE": image,
        "DOCKER_GID": str(Path("/var/run/docker.sock").stat().st_gid),
        "DOCKER_ROOT": docker("info", "--format={{.DockerRootDir}}"),
        "PORT": "0",
        "RUNNER_MEMORY": str(1 << 30),
    }
    return Project(name, [DEPLOY / "compose.yaml", override], environment)

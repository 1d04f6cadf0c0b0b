"""The service behind every proxy: an nginx that answers 1 KiB and counts what reaches it."""

import http.client
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import job
from bench.process import Process, free_port

_CONFIG = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/origin.pid;
error_log {folder}/origin-error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    server_tokens off;
    sendfile on;
    tcp_nopush on;
    default_type text/plain;
    keepalive_requests 100000000;
    keepalive_timeout 300s;
    client_body_temp_path {folder}/origin-body;
    proxy_temp_path {folder}/origin-proxy;
    fastcgi_temp_path {folder}/origin-fastcgi;
    scgi_temp_path {folder}/origin-scgi;
    uwsgi_temp_path {folder}/origin-uwsgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ return 200 "{body}"; }}
        location = /count {{ stub_status; }}
        location = {echo} {{
            return 200 "id=$http_x_consumer_id|name=$http_x_consumer_name|\
group=$http_x_consumer_groups|for=$http_x_forwarded_for|request=$http_x_request_id|\
key=$http_x_api_key";
        }}
        location = {download} {{ alias {folder}/download.bin; }}
    }}
}}
"""


class Origin:
    """A running origin: where it listens, and how many requests it was asked."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self._status: http.client.HTTPConnection | None = None

    def count(self) -> int:
        """Requests that have reached the origin, without those of this method (stub_status)."""
        if self._status is None:
            self._status = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            self._own = 0
        self._own += 1
        self._status.request("GET", "/count")
        text = self._status.getresponse().read().decode()
        requests = re.search(r"^\s*\d+\s+\d+\s+(\d+)", text, re.MULTILINE)
        assert requests is not None, text
        return int(requests[1]) - self._own


def root_user() -> str:
    """nginx gives up root for `nobody`, who may not write into our folder; keep it then."""
    return "user root;" if os.geteuid() == 0 else ""


@contextmanager
def running(folder: Path, on: int) -> Iterator[Origin]:
    """An origin pinned to the CPU `on`, with its files in `folder`; ended on the way out."""
    port = free_port()
    with (folder / "download.bin").open("wb") as download:
        download.truncate(job.DOWNLOAD)
    config = folder / "origin.conf"
    config.write_text(
        _CONFIG.format(
            user=root_user(),
            folder=folder,
            port=port,
            body="o" * job.BODY,
            download=job.DOWNLOAD_PATH,
            echo=job.ECHO_PATH,
        )
    )
    command = ["nginx", "-p", str(folder), "-c", str(config), "-e", f"{folder}/origin-start.log"]
    with Process(command, folder / "origin.log", on, folder) as process:
        process.wait_for(port)
        yield Origin(process, port)

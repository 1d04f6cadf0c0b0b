"""nginx as most run it, and nginx with the job's policy in Lua: the fair comparison."""

import re
from pathlib import Path

from bench import job
from bench.origin import root_user
from bench.peers.base import Peer, output_of

_MODULES = Path("/usr/lib/nginx/modules")

_CONFIG = """\
{user}
{modules}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 16384; }}
http {{
    server_tokens off;
    log_format json escape=json '{{"time":"$time_iso8601","id":"$request_id",'
        '"client":"$remote_addr","tls":"$ssl_protocol","name":"$ssl_server_name",'
        '"protocol":"$server_protocol","method":"$request_method","host":"$host","path":"$uri",'
        '{log}"status":$status,"received":$request_length,"sent":$bytes_sent,'
        '"upstream":"$upstream_addr","seconds":$request_time,'
        '"connect":"$upstream_connect_time","first_byte":"$upstream_header_time"}}';
    access_log {folder}/access.log json buffer=64k flush=1s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    keepalive_requests 100000000;
    keepalive_timeout 300s;
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_tickets on;
    upstream origin {{
        server 127.0.0.1:{origin};
        keepalive 256;
        keepalive_requests 100000000;
    }}
{policy}
    server {{
        listen 127.0.0.1:{port} ssl http2 backlog=4096;
        server_name {host};
        location / {{
{access}
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
            proxy_set_header X-Forwarded-Port $server_port;
            proxy_set_header X-Request-Id $request_id;
        }}
    }}
}}
"""

# The window is the usual two-counter estimate: this window's count, and the part of the last
# one's that still lies within ten seconds.
_POLICY = """\
    lua_package_path "/usr/share/lua/5.1/?.lua;;";
    lua_shared_dict windows 10m;
    init_by_lua_block {{
        keys = {{}}
        for line in io.lines("{folder}/keys.tsv") do
            local key, id, name, group = line:match("([^\\t]*)\\t([^\\t]*)\\t([^\\t]*)\\t([^\\t]*)")
            keys[key] = {{ id = id, name = name, group = group }}
        end
        windows = ngx.shared.windows
    }}
"""

_ACCESS = """\
            set $consumer "";
            access_by_lua_block {{
                local caller = keys[ngx.var.http_x_api_key]
                if not caller then
                    ngx.header["WWW-Authenticate"] = "Bearer"
                    return ngx.exit(401)
                end
                local now = ngx.now() / {window}
                local slot = math.floor(now)
                if caller.slot ~= slot then
                    caller.slot = slot
                    caller.before = caller.id .. ":" .. (slot - 1)
                    caller.current = caller.id .. ":" .. slot
                end
                local left_of_slot = 1 - (now - slot)
                local used = windows:incr(caller.current, 1, 0, {window} * 2)
                    + (windows:get(caller.before) or 0) * left_of_slot
                local reset = math.ceil(left_of_slot * {window})
                if used > {rate} then
                    windows:incr(caller.current, -1)
                    ngx.header["Retry-After"] = reset
                    return ngx.exit(429)
                end
                ngx.req.set_header("X-Consumer-Id", caller.id)
                ngx.req.set_header("X-Consumer-Name", caller.name)
                ngx.req.set_header("X-Consumer-Groups", caller.group)
                ngx.req.clear_header("X-API-Key")
                ngx.var.consumer = caller.id
                ngx.header["RateLimit-Policy"] = '"default";q={rate};w={window}'
                ngx.header["RateLimit"] = '"default";r=' .. math.floor({rate} - used)
                    .. ';t=' .. reset
            }}
"""


class Nginx(Peer):
    """TLS, relaying over pooled connections, forwarding fields and a JSON log."""

    name = "nginx"
    program = "nginx"
    policy = "no keys, no limits"
    http2 = True
    closed = limits = False
    tells: tuple[str, ...] = ()

    modules = policy_block = access_block = log = ""

    @classmethod
    def version(cls) -> str:
        text = output_of("nginx", "-V")
        server = re.search(r"nginx/([\d.]+)", text)
        library = re.search(r"running with OpenSSL ([\w.]+)", text) or re.search(
            r"built with OpenSSL ([\w.]+)", text
        )
        if server is None or library is None:
            return "unknown"
        return f"{server[1]}, OpenSSL {library[1]}"

    def prepare(self) -> None:
        values = {
            "folder": self.folder,
            "rate": job.RATE,
            "window": job.WINDOW,
        }
        (self.folder / "nginx.conf").write_text(
            _CONFIG.format(
                user=root_user(),
                modules=self.modules,
                log=self.log,
                certificate=self.setting.certificate,
                origin=self.setting.origin,
                port=self.port,
                host=job.HOST,
                policy=self.policy_block.format(**values),
                access=self.access_block.format(**values),
                **values,
            )
        )

    def command(self) -> list[str]:
        folder = str(self.folder)
        config = str(self.folder / "nginx.conf")
        return ["nginx", "-p", folder, "-c", config, "-e", f"{folder}/start.log"]


class NginxLua(Nginx):
    """The same with a table of keys, identity fields, a sliding counter and rate fields."""

    name = "nginx+Lua"
    policy = "keys in a Lua table, sliding counter in a shared dictionary, identity and rate fields"
    closed = limits = True
    tells = Peer.tells

    modules = (
        f"load_module {_MODULES}/ndk_http_module.so;\n"
        f"load_module {_MODULES}/ngx_http_lua_module.so;"
    )
    policy_block = _POLICY
    access_block = _ACCESS
    log = '"consumer":"$consumer",'

    @classmethod
    def found(cls) -> str | None:
        lua = _MODULES / "ngx_http_lua_module.so"
        return super().found() if lua.exists() else None

    def prepare(self) -> None:
        super().prepare()
        (self.folder / "keys.tsv").write_text(
            "".join(
                f"{key.credential}\t{key.id}\t{key.name}\t{key.group}\n"
                for key in self.setting.job.keys
            )
        )

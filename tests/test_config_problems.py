"""What the user is told: every problem at once, each at its place, with what would be right."""

import pytest
from config_support import BASE, ROUTE, assert_problems, problems

from edgeproxy.config.problems import ConfigError, Problem, Suggestions

SETTINGS = [
    ("»lissten: ':1'", "'lissten' is not a setting here; did you mean 'listen'?"),
    ("»http-port: 1", "'http-port' is not a setting here; there is: "),
    ("»trusted-proxies: 10.0.0.0/8", "did you mean 'trusted_proxies'?"),
    ("listen: { »htps: ':1' }", "'htps' is not a setting here; did you mean 'https'?"),
    ("listen: { https: »8443 }", '8443 is a number; write ":8443"'),
    ("listen: »8443", '8443 is a number; write ":8443"'),
    ("listen: »[a, b]", "a list stands here; text would be right"),
    ("listen: »{ https: ':1', http: ':1' }", "give each its own port"),
    ("listen: { connections: »many }", "'many' stands here; a whole number would be right"),
    ("listen: { connections: »1.5 }", "'1.5' stands here; a whole number would be right"),
    ("listen: { connections: »0 }", "'0' is too small; at least 1 would be right"),
    ("listen: { backlog: »70000 }", "'70000' is too large; at most 65535 would be right"),
    ("listen: { backlog: »true }", "true stands here; a whole number would be right"),
    ("keys:»", "nothing stands here; give it a value, or remove the line"),
    ("keys: { »a: b }", "'a' is not a setting here"),
    ("certs: { default: »'a b' }", "'a b' is not a host name"),
    (
        "auth: { »partner: { jwks: x } }",
        "'partner' does not say what kind of credential it is",
    ),
    ("auth: { »none: {} }", "'none' has its meaning already; remove it"),
    ("auth: »api_key", "'api_key' stands here; settings in the form `key: value`"),
    ("auth: { api_key: { query: »'a b' } }", "'a b' is not a name for a parameter"),
    ("auth: { api_key: { header: »'a b' } }", "'a b' is not"),
    ("auth: { api_key: { header: »X-API-Key } }", "X-API-Key may carry a key already"),
    *(
        (f"auth: {{ api_key: {{ header: »{name} }} }}", f"{name} has another meaning; take a field")
        for name in (
            *("Authorization", "Cookie", "Host", "Connection", "TE", "Proxy-Authorization"),
            *("X_Forwarded_For", "X-Real-IP", "Forwarded", "X-Request-Id", "X-Consumer-Key"),
            *("Content-Type", "If_Match", "X.Edge.Token", "User-Agent", "Expect"),
        )
    ),
    (
        "auth: { api_key: { header: »X-User_K }, p: { authorize: https://a/, take: X_User-K } }",
        "X-User_K is set by 'p'; take another field",
    ),
    ("timeouts: { handshake: »0s }", "'0s' is out of range"),
    ("timeouts: { head: »10 s }", "'10 s' is not a duration; write it as 60s"),
    ("timeouts: { body_rate: »5/s/s }", "is not a speed; write it as 500B/s"),
    ("heads: »{ target: 64KiB }", "the sizes do not fit"),
    ("trusted_proxies: »10.0.0.1/8", "did you mean '10.0.0.0/8'?"),
    ("trusted_proxies: [ 10.0.0.0/8, »nowhere ]", "'nowhere' is not a network"),
    (
        "trusted_proxies: [ »'::ffff:10.0.0.1' ]",
        "'::ffff:10.0.0.1' is IPv4 in the form of IPv6; write it as '10.0.0.1'",
    ),
    (
        "trusted_proxies: [ »'::ffff:10.0.0.0/104' ]",
        "'::ffff:10.0.0.0/104' is IPv4 in the form of IPv6; write it as '10.0.0.0/8'",
    ),
    (
        "forwarded: »both",
        "'both' is not a choice here; 'x-forwarded' or 'forwarded' would be right",
    ),
    ("server_header: »no", "'no' is not a choice here; 'hide' or 'keep' would be right"),
    ("access_log: »[ a ]", "a list is not a path"),
    ("defaults: { auth: »none }", "'none' here would open every route; say it on the route itself"),
    ("defaults: { auth: [ api_key, »anonymous ] }", "would open every route"),
    ("defaults: { auth: »[] }", "an empty list says nothing"),
    ("defaults: { auth: »api-key }", "there is no credential 'api-key'; did you mean 'api_key'?"),
    (
        "limits: { pay: 1/s }\ndefaults: { limit: »pya }",
        "there is no limit 'pya'; did you mean 'pay'?",
    ),
    ("defaults: { limit: »pay }", "there is no limit 'pay'"),
    ("defaults: { »scopes: a }", "'scopes' is not a setting here"),
    ("defaults: { request: { set: { »Host: a } } }", "Host has a setting of its own"),
    ("defaults: { response: { remove: »Connection } }", "Connection belongs to the connection"),
    ("limits: { »Pay: 1/s }", "'Pay' is not a name for a limit"),
    ("limits: { »none: 1/s }", "'none' on a route means that no limit applies"),
    ("limits: { pay: »1/x }", "'1/x' is not a rate; write it as 100/min"),
    ("limits: { pay: { rate: »1/x } }", "'1/x' is not a rate; write it as 100/min"),
    ("limits: { pay: »{ by: key } }", "'rate' is missing here; add it"),
    ("limits: { pay: { rate: 1/s, by: »ip } }", "'key' or 'address' would be right"),
    ("limits: { pay: { rate: 1/s, plans: { »a b: 1/s } } }", "'a b' is not a name"),
    ("limits: { pay: { rate: 1/s, plans: { gold: »1 } } }", "'1' is not a rate"),
    ("limits: { pay: »5 }", "'5' is not a rate"),
    ("limits: { pay: { rate: 1/s, shadow: »yes } }", "'yes' stands here; true or false"),
    ("limits: »[ a ]", "a list stands here; settings in the form `key: value` would be right"),
]


@pytest.mark.parametrize(("marked", "message"), SETTINGS)
def test_settings(marked: str, message: str) -> None:
    assert_problems(BASE + ROUTE + marked, message)


UPSTREAMS = [
    ("»3", "'3' is not a URL; write it as http://10.0.0.1:9001"),
    ("»[]", "an empty list says nothing"),
    ("»'unix:'", "names no socket; write it as unix:/run/app.sock"),
    ("»unix:///run/app.sock", "write unix:/run/app.sock"),
    ("»'unix:@app'", "only sockets in the file system"),
    ("»unix:/run/ä.sock", "holds characters"),
    ("»unix:/" + "x" * 200, "too long"),
    ("[ unix:app.sock, »unix:./app.sock ]", "stands here twice"),
    ("{ targets: http://a, »tls: {} }", "no target of this upstream is https://"),
    ("{ targets: https://a, tls: { ca: »none.pem } }", "'none.pem' cannot be read: no such file"),
    ("{ targets: https://a, tls: { certificate: »none.pem } }", "'none.pem' cannot be read"),
    ("{ targets: https://a, tls: { key: »none.pem } }", "a key needs its certificate"),
    ("{ targets: https://a, tls: { name: »a b } }", "'a b' is not a host name"),
    ("{ targets: https://a, tls: { verify: »no } }", "true or false would be right"),
    ("{ targets: https://a, tls: { »cert: x } }", "'cert' is not a setting here"),
    ("»a:80", "'a:80' is not a URL; write it as http://10.0.0.1:9001"),
    ("[ http://a, »3 ]", "'3' is not a URL"),
    ("[ http://a, »http://A:80/ ]", "http://a:80 stands here twice"),
    ("»{}", "'targets' is missing here; add it"),
    ("{ targets: http://a, »conections: 3 }", "did you mean 'connections'?"),
    ("{ targets: http://a, connections: »0 }", "at least 1 would be right"),
    ("{ targets: http://a, host: »'*.a' }", "write one whole name"),
    ("{ targets: http://a, set: { »x-consumer-id: b } }", "only the gateway writes it"),
    ("{ targets: http://a, set: { »X_Consumer_Whatever: b } }", "only the gateway writes it"),
    ("{ targets: http://a, set: { »Transfer-Encoding: b } }", "belongs to the connection"),
    ("{ targets: http://a, set: { »Via: b } }", "is written by the gateway"),
    ("{ targets: http://a, set: { »a b: c } }", "'a b' is not a field name"),
    ("{ targets: http://a, set: { A: b, »a: c } }", "a stands here twice"),
    ("{ targets: http://a, set: { A: »5 } }", "this is not text; put it in quotes"),
    ("{ targets: http://a, timeouts: { connect: »never } }", "'never' is not a duration"),
    ("{ targets: http://a, timeouts: { »conect: 3s } }", "did you mean 'connect'?"),
]


@pytest.mark.parametrize(("marked", "message"), UPSTREAMS)
def test_upstreams(marked: str, message: str) -> None:
    assert_problems("routes: { '*': { /: x } }\nupstreams:\n  x: " + marked, message)


ROUTES = [
    ("/a: »usres", "there is no upstream 'usres'; did you mean 'users'?"),
    ("/a: »nothing-near", "there is no upstream 'nothing-near'; there is: orders, users"),
    ("/a: »http://127.0.0.1:9001", "a URL stands here; give it a name under `upstreams`"),
    ("/a:»", "nothing stands here; give it a value, or remove the line"),
    ("/a: »[]", "an empty list is no route"),
    ("/a: »{}", "this route leads nowhere; add `to:`"),
    ("/a: »3", '3 is not text; put it in quotes: "3"'),
    ("/a: { to: users, »sccopes: x }", "did you mean 'scopes'?"),
    ("/a: { to: users, page: »true }", "a route has `to` or `page`, not both"),
    ("/a: { to: users, auth: »nnone }", "there is no credential 'nnone'; did you mean 'none'?"),
    ("/a: { to: users, auth: »[ none, api_key ] }", "'none' stands alone"),
    ("/a: { to: users, auth: »[] }", "an empty list says nothing"),
    ("/a: { to: users, auth: »}", "nothing stands here"),
    ("/a: { to: users, auth: »false }", 'false is not text; put it in quotes: "false"'),
    ("/a: { to: users, auth: none, scopes: »x }", "an open route cannot ask for scopes"),
    ("/a: { to: users, auth: [api_key, anonymous], groups: »x }", "cannot ask for groups"),
    ("/a: { to: users, scopes: [ a, »a b ] }", "'a b' is not a scope"),
    ("/a: { to: users, scopes: »[ a, a ] }", "'a' stands twice in this list"),
    ("/a: { to: users, limit: »pay }", "there is no limit 'pay'"),
    ("/a: { to: users, limit: »[ none, none ] }", "'none' stands twice in this list"),
    ("/a: { to: users, when: { »X-Consumer-Id: a } }", "is removed from what clients send"),
    ("/a: { to: users, when: { »host: a } }", "move the route to its host"),
    ("/a: { to: users, when: { X: a, »x: b } }", "x stands here twice"),
    ('/a: { to: users, when: { X: »"a\\nb" } }', "cannot stand in a header field"),
    ("/a: { to: users, strip: »/b }", "'/b' is not the front of '/a'"),
    ("/ab: { to: users, strip: »/a }", "'/a' is not the front of '/ab'"),
    ("/a: { to: users, strip: »3 }", "true, false or a path would be right"),
    ("/a: { to: users, strip: »b }", "it begins with /"),
    ("'regex:/a': { to: users, strip: »true }", "a regular expression has no fixed front"),
    ("/a: { to: users, body: »1x }", "'1x' is not a size"),
    ("/a: { to: users, encoded_slash: »yes }", "'refuse' or 'keep' would be right"),
    ("/a: { page: true, websocket: »true }", "only a service behind, named by `to`, can speak it"),
    ("POST /a: { to: users, websocket: »true }", "a WebSocket begins with GET"),
    ("/a: { to: users, websocket: »yes }", "true or false would be right"),
    ("/a: { to: users, timeouts: { »connect: 3s } }", "'connect' is not a setting here"),
    ("/a: { to: users, request: { set: { A: b }, remove: »a } }", "named under `set` already"),
    ("/a: { to: users, request: { set: { a: b }, remove: »A } }", "named under `set` already"),
    ("/a: { to: users, request: { remove: [ A, »Content-Length ] } }", "belongs to the connection"),
    ("/a: { to: users, request: { »sett: { A: b } } }", "did you mean 'set'?"),
    ("/a: { to: users, request: { add: { A: »5 } } }", '5 is not text; put it in quotes: "5"'),
    ("/a: { to: users, response: { set: { »RateLimit: x } } }", "is written by the gateway"),
    ("/a: users\n    »GET|GET /b: users", "names a method twice"),
    ("»orders: users", "it begins with /, as in '/orders'"),
    ("/a: users\n    »/a: users", "'/a' stands here twice, first on line 4"),
    (
        "GET /a: users\n    »GET|HEAD /a: users",
        "e.yaml:4 has a route for the same GET, HEAD requests",
    ),
    ("GET /a: users\n    »HEAD /a: users", "e.yaml:4 has a route for the same HEAD requests"),
    ("/a: [ users, »users ]", "e.yaml:4 has a route for the same requests"),
    (
        "/a: [ { to: users, when: {A: b, C: d} }, »{ to: orders, when: {c: d, a: b} } ]",
        "e.yaml:4 has a route for the same requests",
    ),
    ("/a: users\n  »https://b: { /: users }", "leave out the scheme and the path"),
    (
        "/a: users\n  EXAMPLE.com:\n    /b: users\n  example.com:\n    »/b: users",
        "e.yaml:6 has a route",
    ),
    ("/a: users\n  b: »users", "'users' stands here; settings in the form `key: value`"),
]


@pytest.mark.parametrize(("marked", "message"), ROUTES)
def test_routes(marked: str, message: str) -> None:
    assert_problems(BASE + "routes:\n  '*':\n    " + marked, message)


@pytest.mark.parametrize(
    "text",
    [
        "GET /a: users\n    POST /a: users\n    /a: users",
        "/a: users\n    exact:/a: users\n    'regex:/a': users",
        "/a: [ users, { to: orders, when: {A: b} }, { to: orders, when: {A: c} } ]",
        "/a: { to: users, strip: true }\n    /a/b: { to: users, strip: /a }",
        "exact:/a: { to: users, strip: /a }\n    'regex:/a.*': { to: users, strip: /a }",
        "/a: { to: users, auth: [ api_key, anonymous ] }\n    /b: { page: true, auth: none }",
        "/a: { to: users, response: { set: { Server: x }, remove: [ X-Powered-By ] } }",
    ],
)
def test_right(text: str) -> None:
    assert problems(BASE + "routes:\n  '*':\n    " + text) == []


def test_all_at_once() -> None:
    assert_problems(
        """
»lissten: x
listen: { https: »8443, connections: »no }
certs: { folder: »[], »fodler: x }
limits:
  pay: { rate: »1/x, by: »ip }
  »Ab: 1/s
defaults: { auth: [ »none, »nine ], body: »1x, request: { set: { »Host: a, A: »5 } } }
upstreams:
  a: { targets: [ »ftp://a, http://b ], set: { »Via: x, A: "»" }, idle: »0 }
routes:
  "»*:80":
    /: a
  "*":
    »get /: { to: »b, auth: »nine, body: »x, »strp: y }
    /x: { to: »c, limit: [ pay, »pya ] }
""".replace('"»*:80"', '»"*:80"').replace('"»"', '»""'),
        "did you mean 'listen'?",
        'write ":8443"',
        "a whole number",
        "a list is not a path",
        "did you mean 'folder'?",
        "is not a rate",
        "'key' or 'address'",
        "is not a name for a limit",
        "would open every route",
        "there is no credential 'nine'",
        "is not a size",
        "Host has a setting of its own",
        "put it in quotes",
        "is not a URL",
        "is written by the gateway",
        "cannot stand in a header field",
        "out of range",
        "has a port; leave it out",
        "did you mean 'GET'?",
        "there is no upstream 'b'",
        "there is no credential 'nine'",
        "is not a size",
        "did you mean 'strip'?",
        "there is no upstream 'c'",
        "there is no limit 'pya'; did you mean 'pay'?",
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "keys: x"])
def test_nothing_routed(text: str) -> None:
    (problem,) = problems(text)
    assert "nothing is routed; add `routes:`" in problem.message


@pytest.mark.parametrize("text", ["[]", "users", "3", "- a: b"])
def test_not_a_mapping(text: str) -> None:
    found = problems(text)
    assert "settings in the form `key: value` would be right" in found[0].message


def test_empty_sections_are_fine() -> None:
    assert problems("limits:\nupstreams:\nroutes:\n") == []


def test_problem_as_text() -> None:
    problem = Problem("a\nb.yaml", 3, 7, "wrong \x1b[31m")
    assert str(ConfigError([problem, problem])) == "\n".join([r"a\nb.yaml:3:7: wrong \x1b[31m"] * 2)


def test_suggestions_are_bounded() -> None:
    names = [f"name{n}" for n in range(1000)]
    suggestions = Suggestions()
    answers = [suggestions.near("nmae7", names) for _ in range(200)]
    assert answers[0] == "; did you mean 'name7'?" and answers[-1] == ""
    assert Suggestions().near("n" * 100_000, names) == ""

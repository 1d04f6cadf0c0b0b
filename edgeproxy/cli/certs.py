"""``edgeproxy certs``: the certificates, and which one answers for a name."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from edgeproxy.cli.options import config_option, json_option, the_config
from edgeproxy.cli.output import (
    Failed,
    as_json,
    counted,
    example,
    progress,
    shown_path,
    table,
    warn,
)

if TYPE_CHECKING:
    from edgeproxy.certs.names import Choice, NameMap
    from edgeproxy.certs.scan import Chain, Problem
    from edgeproxy.config.clientcerts import Asked

NOTHING = "no usable certificate with its key; put both there"

T = TypeVar("T")


class Stock(NamedTuple):
    """What lies in a folder of certificates, as a gateway that starts now would take it."""

    names: NameMap
    chains: tuple[Chain, ...]
    """All of them, also what OpenSSL would not load."""
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def take_stock(folder: Path, default: str | None) -> Stock:
    """Read a folder and try every certificate in it. Shows progress where that takes long."""
    from edgeproxy.certs.advice import all_advice
    from edgeproxy.certs.contexts import ServerTLS
    from edgeproxy.certs.folder import read_folder
    from edgeproxy.certs.names import NameMap
    from edgeproxy.certs.reading import survey_in_steps
    from edgeproxy.certs.scan import Problem, scan_in_steps

    now = datetime.now(UTC)
    with progress("certificates") as step:
        survey = _finished(survey_in_steps(folder), step)
        found = _finished(scan_in_steps(read_folder(folder), now), step)
    tls = ServerTLS(NameMap(found.chains, default, now))
    refused = [
        Problem(chain.files[0], f"OpenSSL does not load it: {reason}")
        for chain, reason in tls.rejected
    ]
    problems = {*found.problems, *survey.problems, *refused}
    warnings = {*all_advice(tls.names, found.key_files, survey.modes)}
    if tls.names.entries:
        # Beside what is served a `.pfx` of the same is for somebody else; alone it is the mistake.
        problems.difference_update(found.foreign)
        warnings.update(found.foreign)
    return Stock(tls.names, found.chains, tuple(sorted(problems)), tuple(sorted(warnings)))


def _finished(steps: Generator[None, None, T], step: Callable[[], None]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        step()


@click.command(
    short_help="List the certificates: names, expiry, which file wins.",
    epilog=example("edgeproxy certs --for api.example.com"),
)
@click.option("--for", "name", metavar="NAME", help="Which certificate answers for NAME, and why.")
@config_option
@json_option
def certs(name: str | None, config: Path | None, json_: bool) -> None:
    """List the certificates in certs/: names, issuer, expiry, and which file wins.

    The exact name goes before a wildcard, that before the default; valid before expired; then per
    key type the one that lasts longest. What a running gateway keeps from before a file broke
    is in `edgeproxy status`.

    The exit status is 1 when a file is broken, nothing can be served or clients are turned away;
    with --for, when a client that asks for NAME would not accept what it gets.
    """
    loaded = the_config(config)
    settings = loaded.certs
    if not settings.folder.is_dir():
        raise Failed(f"{shown_path(settings.folder)}: there is no such folder")
    stock = take_stock(settings.folder, settings.default)
    if name is None:
        _list(stock, settings.folder, json_)
        raise SystemExit(1 if stock.problems or not stock.names.entries else 0)
    choice = stock.names.why(name)
    asked = _asked(choice, stock.names, loaded.client_certificates)
    if json_:
        shown = None if asked is None else asked.model_dump()
        as_json({**_choice(choice, stock.names.made), "client_certificate": shown})
    else:
        _explain(choice, settings.folder, stock.names.made)
        if asked is not None:
            must = "required" if asked.required else "voluntary"
            click.echo(f"asks for:  a client certificate of {asked.by}, {must}")
    raise SystemExit(0 if _accepted(choice, stock.names.made) else 1)


def _asked(choice: Choice, names: NameMap, by_host: Mapping[str, Asked]) -> Asked | None:
    """What the client is asked for, once it is answered at all."""
    from edgeproxy.certs.clients import of_sni

    return None if choice.entry is None else of_sni(choice.name, names, by_host)


def _accepted(choice: Choice, now: datetime) -> bool:
    """Whether some client would find its name in a valid certificate."""
    covered = choice.rule in ("exact", "wildcard") and choice.entry is not None
    return covered and choice.entry is not None and any(c.valid(now) for c in choice.entry.chains)


# -- all of them ---------------------------------------------------------------------------------


def _list(stock: Stock, folder: Path, json_: bool) -> None:
    names = stock.names
    if json_:
        as_json(
            {
                "certificates": [_chain(chain, names) for chain in stock.chains],
                "problems": [problem._asdict() for problem in stock.problems],
                "warnings": [problem._asdict() for problem in stock.warnings],
            }
        )
        return
    rows = [
        [
            ", ".join(chain.names),
            chain.key_type,
            chain.issuer,
            _expiry(chain, names.made),
            ", ".join(chain.files),
            _wins(chain, names),
        ]
        for chain in stock.chains
    ]
    losing = [
        number
        for number, chain in enumerate(stock.chains)
        if not names.answered(chain) or not chain.valid(names.made)
    ]
    table(["NAMES", "KEY", "ISSUER", "EXPIRES", "FILES", "ANSWERS FOR"], rows, losing)
    for problem in (*stock.problems, *stock.warnings):
        warn(f"{shown_path(folder / problem.file)}: {problem.message}")
    if not names.entries:
        warn(f"{shown_path(folder)}: {NOTHING}")


def _wins(chain: Chain, names: NameMap) -> str:
    found = names.answered(chain)
    if not found:
        if not chain.valid(names.made):
            return "nothing: not valid now"
        if chain not in names.chains:
            return "nothing: OpenSSL does not load it"
        return "nothing: another lasts longer"
    return "all its names" if len(found) == len(chain.names) else ", ".join(found)


def _expiry(chain: Chain, now: datetime) -> str:
    date = f"{chain.not_after:%Y-%m-%d}"
    if now < chain.not_before:
        return f"{date} (not yet valid)"
    if now > chain.not_after:
        return f"{date} (expired)"
    return f"{date} (in {counted((chain.not_after - now).days, 'day')})"


def _chain(chain: Chain, names: NameMap) -> dict[str, Any]:
    return {
        "names": list(chain.names),
        "answers_for": names.answered(chain),
        "key": chain.key_type,
        "issuer": chain.issuer,
        "not_before": chain.not_before.isoformat(),
        "not_after": chain.not_after.isoformat(),
        "valid": chain.valid(names.made),
        "files": list(chain.files),
        "fingerprint": chain.fingerprint,
    }


# -- one name ------------------------------------------------------------------------------------

_RULES = {
    "exact": "a certificate carries exactly this name",
    "wildcard": "no valid certificate carries this name, one carries a wildcard over it",
    "default": "no certificate covers this name: the default answers (`certs: default:`), "
    "and clients will say that it is for another name",
    "refused": "no certificate covers this name, and there is no default: "
    "the handshake is refused (unrecognized_name)",
}


def _answers(choice: Choice) -> list[tuple[Chain, str]]:
    """The chains that answer, each with the clients that get it."""
    if choice.entry is None:
        return []
    chains = choice.entry.chains
    if len(chains) == 1:
        return [(chains[0], "to every client")]
    first, *others = chains
    return [
        (first, f"to clients that can verify {first.key_type}"),
        *((chain, f"to others, if they can verify {chain.key_type}") for chain in others),
    ]


def _explain(choice: Choice, folder: Path, now: datetime) -> None:
    click.echo(f"{choice.name or 'that is no host name'}: {_RULES[choice.rule]}")
    for chain, clients in _answers(choice):
        state = "" if chain.valid(now) else ", which is not valid now: clients will refuse it"
        click.echo(
            f"answers: {_files(chain, folder)} ({chain.key_type}, "
            f"until {chain.not_after:%Y-%m-%d}{state}), {clients}"
        )
    for candidate in choice.candidates:
        if candidate.verdict != "answers":
            chain = candidate.chain
            click.echo(
                f"does not:  {_files(chain, folder)} ({chain.key_type}, "
                f"until {chain.not_after:%Y-%m-%d}): {candidate.verdict}"
            )


def _files(chain: Chain, folder: Path) -> str:
    return ", ".join(shown_path(folder / file) for file in chain.files)


def _choice(choice: Choice, now: datetime) -> dict[str, Any]:
    answers = _answers(choice)
    return {
        "name": choice.name,
        "rule": choice.rule,
        "accepted": _accepted(choice, now),
        "alert": None if answers else "unrecognized_name",
        "files": [list(chain.files) for chain, _ in answers],
        "answers": [
            {
                "files": list(chain.files),
                "key": chain.key_type,
                "issuer": chain.issuer,
                "not_after": chain.not_after.isoformat(),
                "valid": chain.valid(now),
                "fingerprint": chain.fingerprint,
                "clients": clients,
            }
            for chain, clients in answers
        ],
        "candidates": [
            {
                "files": list(candidate.chain.files),
                "pattern": candidate.pattern,
                "key": candidate.chain.key_type,
                "verdict": candidate.verdict,
                "not_after": candidate.chain.not_after.isoformat(),
            }
            for candidate in choice.candidates
        ],
    }

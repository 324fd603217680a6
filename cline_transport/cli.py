# SPDX-License-Identifier: Apache-2.0
"""The command `cline-transport`: a tour, a simulated Cline API, and what is in effect here."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, cast

from cline_transport._version import __version__

__all__ = ["main"]

_OPTIONAL: Final = ("h11", "httpx2", "openai", "opentelemetry.sdk", "rich")
_EXTRAS: Final = {"demo": "demo", "simulate": "simulator"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments without the program's name; those of the process by default.

    Returns:
        The exit status: 0; 1 for what failed, with a line that says what; 2 where no sub-command
        is given; 130 after Ctrl+C.

    Raises:
        SystemExit: `--help`, `--version` (0) or arguments that make no sense (2).

    Example:
        ```python
        sys.exit(main(["demo", "--no-color"]))
        ```
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help(sys.stderr)
        return 2
    run = cast("Callable[[argparse.Namespace], int]", args.run)
    try:
        return run(args)
    except ImportError as exc:
        missing = exc.name or ""
        if not any(f"{missing}.".startswith(f"{package}.") for package in _OPTIONAL):
            raise
        remedy = f"pip install 'cline-transport[{_EXTRAS[args.command]}]'"
        return _fail(f"{args.command} needs the package {missing!r}: {remedy}")
    except (OSError, ValueError) as exc:
        # A port that is taken, a wrong setting: told, not traced.
        return _fail(str(exc))
    except KeyboardInterrupt:
        return 130


def _fail(message: str) -> int:
    print(f"cline-transport: {message}", file=sys.stderr)  # noqa: T201 - it is a command
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cline-transport",
        description="Calls to the Cline API that survive and can be explained.",
    )
    parser.add_argument("--version", action="version", version=f"cline-transport {__version__}")
    parser.set_defaults(run=None, command=None)
    commands = parser.add_subparsers(metavar="command")

    text = "show what the transport makes of good and bad answers, in real calls and their traces"
    demo = commands.add_parser("demo", help=text, description=text.capitalize() + ".")
    demo.add_argument(
        "--live",
        action="store_true",
        help="one real call instead: needs CLINE_API_KEY; CLINE_MODEL and CLINE_BASE_URL are read",
    )
    demo.add_argument("--no-color", action="store_true", help="no colours")
    demo.set_defaults(run=_demo, command="demo")

    text = "run a Cline API on this machine that misbehaves as its models say"
    simulate = commands.add_parser("simulate", help=text, description=text.capitalize() + ".")
    simulate.add_argument(
        "--port",
        type=_port,
        default=8080,
        metavar="N",
        help="where to listen (default 8080; 0: any free port)",
    )
    simulate.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1)"
    )
    simulate.add_argument(
        "--requests-per-minute",
        type=_rate,
        metavar="N",
        help="refuse what is over this rate, for each key, with HTTP 429 (default: any rate)",
    )
    simulate.add_argument(
        "--concurrent",
        type=_count,
        metavar="N",
        help="refuse what is over so many requests at once, the same way (default: any number)",
    )
    simulate.set_defaults(run=_simulate, command="simulate")

    text = "show which settings are in effect, where they came from, and what is wrong with them"
    config = commands.add_parser("config", help=text, description=text.capitalize() + ".")
    instead = config.add_mutually_exclusive_group()
    instead.add_argument("--json", action="store_true", help="the same in JSON")
    instead.add_argument(
        "--toml", action="store_true", help="instead: a file with all settings, their defaults"
    )
    instead.add_argument(
        "--schema", action="store_true", help="instead: the JSON schema of such a file"
    )
    config.set_defaults(run=_config, command="config")
    return parser


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535 (got {text!r})")
    return port


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number > 0 (got {text!r})")
    return rate


def _count(text: str) -> int:
    count = int(text) if text.isascii() and text.isdigit() else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1 (got {text!r})")
    return count


# What a sub-command needs is loaded when it runs: it may not be installed.


def _demo(args: argparse.Namespace) -> int:
    from cline_transport._demo.stage import make_console  # noqa: PLC0415 - see above

    console = make_console(no_color=args.no_color)
    if args.live:
        from cline_transport._demo.live import (  # noqa: PLC0415 - the same
            read_live_options,
            run_live,
        )

        return run_live(console, read_live_options(os.environ))
    from cline_transport._demo.tour import run_tour  # noqa: PLC0415 - see above

    return run_tour(console)


def _simulate(args: argparse.Namespace) -> int:
    from cline_transport.simulator import (  # noqa: PLC0415 - see above
        ApiLimits,
        Simulator,
        serve_forever,
    )
    from cline_transport.simulator.scenarios import SCENARIOS  # noqa: PLC0415 - the same

    rate, most = args.requests_per_minute, args.concurrent
    told = [] if rate is None else [f"{rate:.15g} requests per minute"]
    told += [] if most is None else [f"{most} at once"]

    def ready(api: Simulator) -> None:
        width = max(map(len, SCENARIOS))
        table = (f"  {model:<{width}}  {what.description}" for model, what in SCENARIOS.items())
        lines = (
            f"Base URL  {api.base_url}",
            f"API key   {api.api_key}",
            *([f"Limits    {', '.join(told)}"] if told else []),
            "",
            "The model chooses what happens:",
            *table,
            "",
            "Ctrl+C stops it.",
        )
        print("\n".join(lines), flush=True)  # noqa: T201 - it is a command

    limits = ApiLimits(requests_per_minute=rate, concurrent=most)
    serve_forever(args.port, host=args.host, limits=limits, on_ready=ready)
    return 0


def _config(args: argparse.Namespace) -> int:
    from cline_transport._reference import schema_text, toml  # noqa: PLC0415 - see above

    if args.toml or args.schema:
        print(toml() if args.toml else schema_text(), end="")  # noqa: T201 - it is a command
        return 0
    from cline_transport._config_report import make_report  # noqa: PLC0415 - see above

    report = make_report()
    print(report.to_json() if args.json else report.to_text())  # noqa: T201 - it is a command
    return 1 if report.problems else 0

"""hearth doctor: check this machine, one line per check, with advice for what fails."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from typing import Annotated

import typer

from hearth import settings
from hearth.cli.output import say, show_json
from hearth.nodes.diagnosis import Finding, diagnose
from hearth.telemetry import logs


class Output(enum.StrEnum):
    """The forms of the report."""

    TEXT = "text"
    JSON = "json"


def doctor(
    output: Annotated[Output, typer.Option("--output", "-o", help="Output format: text or json.")] = Output.TEXT,
) -> None:
    """Check everything that a start with these settings needs. Exit status 1: it would fail.

    Examples:
        hearth doctor
        FN_DRIVER=docker hearth doctor --output json
    """
    wanted = settings.load()
    logs.configure("error")
    findings = [*_unknown(), *asyncio.run(diagnose(wanted))]
    if output is Output.JSON:
        show_json([dataclasses.asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(_line(finding))
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(1)


def _unknown() -> list[Finding]:
    return [
        *(
            Finding("settings", "warn", f"Hearth has no variable {name}", f"perhaps {near} is meant" if near else "")
            for name, near in settings.unknown_variables().items()
        ),
        *(
            Finding("settings", "warn", f"{name}, a variable of Fn, has no effect", instead)
            for name, instead in settings.variables_without_effect().items()
        ),
    ]


def _line(finding: Finding) -> str:
    advice = f"; {finding.advice}" if finding.advice else ""
    return f"{finding.status:<5} {finding.check:<13} {finding.found}{advice}"

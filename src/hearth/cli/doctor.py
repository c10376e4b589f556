"""hearth doctor: what works here, one line each, and what to do about the rest."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
from typing import Annotated

import typer

from hearth import settings
from hearth.nodes.diagnosis import Finding, diagnose
from hearth.telemetry import logs


class Output(enum.StrEnum):
    """The forms of the report."""

    TEXT = "text"
    JSON = "json"


def doctor(
    output: Annotated[Output, typer.Option("--output", "-o", help="text, or json for programs.")] = Output.TEXT,
) -> None:
    """Look at everything a start with these settings needs. Exit status 1: something would keep it from serving."""
    wanted = settings.load()
    logs.configure("error")
    findings = [*_unknown(), *asyncio.run(diagnose(wanted))]
    if output is Output.JSON:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            typer.echo(_line(finding))
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(1)


def _unknown() -> list[Finding]:
    return [
        Finding("settings", "warn", f"{name} is no variable of Hearth's", f"perhaps {near} is meant" if near else "")
        for name, near in settings.unknown_variables().items()
    ]


def _line(finding: Finding) -> str:
    advice = f"; {finding.advice}" if finding.advice else ""
    return f"{finding.status:<5} {finding.check:<13} {finding.found}{advice}"

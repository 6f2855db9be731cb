"""A command of ours: errors become one line or one object, help comes in sections, signals end it in order."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from paddock.cli.failures import FAILED, Interrupted, leading_error, report_failure
from paddock.cli.output import silence_standard_output

__all__ = ["PaddockCommand", "SectionOption"]


class SectionOption(click.Option):
    """An option that is listed under a heading of its own in the help."""

    def __init__(self, *arguments: Any, section: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.section = section


class PaddockCommand(click.Command):
    """``examples`` are command lines that the help shows as they are."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = tuple(examples)

    def invoke(self, ctx: click.Context) -> Any:
        as_json = bool(ctx.params.get("as_json"))
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            return self._end(ctx, Interrupted(2), as_json=as_json)
        except Exception as raised:
            error = leading_error(raised)
            if isinstance(error, BrokenPipeError):
                silence_standard_output()
                ctx.exit(0)  # whoever read our output has seen enough
            if str(ctx.params.get("log_level")) == "debug":
                traceback.print_exception(raised, file=sys.stderr)
            return self._end(ctx, error, as_json=as_json)

    def _end(self, ctx: click.Context, error: BaseException, *, as_json: bool) -> None:
        try:
            report_failure(error, as_json=as_json)
        except BrokenPipeError:
            silence_standard_output()
        except OSError:
            report_failure(error, as_json=False)  # stdout takes nothing more
        ctx.exit(error.exit_code if isinstance(error, Interrupted) else FAILED)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")

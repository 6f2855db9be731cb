from __future__ import annotations

import pytest
from click.testing import CliRunner

import paddock.cli.model_facts
from paddock.cli import main
from paddock.cli.failures import error_object, leading_error
from paddock.errors import ContextOverflow, RuntimeClosed


def test_an_error_object_has_type_message_and_public_attributes() -> None:
    error = ContextOverflow(10, 20, 16)
    assert error_object(error) == {
        "error": {
            "type": "ContextOverflow",
            "message": str(error),
            "prompt_tokens": 10,
            "max_tokens": 20,
            "n_ctx": 16,
            "at_least": False,
        }
    }


def test_of_a_group_the_error_raised_on_purpose_leads() -> None:
    closed = RuntimeClosed()
    group = ExceptionGroup("", [ValueError(), ExceptionGroup("", [closed])])
    assert leading_error(group) is closed


@pytest.mark.parametrize("json", [True, False])
def test_a_defect_of_ours_is_one_line_without_a_traceback(json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(**_: object) -> None:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(paddock.cli.model_facts, "list_house_models", break_down)
    result = CliRunner().invoke(main, ["models", "list", *(["--json"] if json else [])])
    assert result.exit_code == 1
    told = result.stdout if json else result.stderr
    assert "ZeroDivisionError" in told
    assert "internal error: a b" in told
    assert result.output.count("\n") == 1

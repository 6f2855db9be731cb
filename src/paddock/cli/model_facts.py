"""What ``paddock models`` does: facts from a file's header. llama.cpp is not loaded for it."""

from __future__ import annotations

import attrs

from paddock.cli.output import write_json, write_text
from paddock.cli.plain import plain
from paddock.config import ModelConfig
from paddock.engine.plan import ModelPlan, plan_model
from paddock.errors import ChatTemplateMissing, InvalidConfiguration, ModelError, ModelNotFound
from paddock.models import HOUSE_MODELS, ModelFacts, facts_of, read_header, resolve

__all__ = ["list_house_models", "show_model"]


def show_model(source: str, *, with_template: bool, as_json: bool) -> None:
    """Prints the facts of one model. Raises ModelNotFound, InvalidModelFile and its kinds, ChatTemplateMissing."""
    facts = facts_of(read_header(resolve(source)))
    if as_json:
        write_json(_facts_object(facts, with_template=with_template))
    elif not with_template:
        write_text("".join(f"{name:<16} {value}\n" for name, value in _facts_lines(facts)))
    elif facts.chat_template is None:
        raise ChatTemplateMissing
    else:
        write_text(facts.chat_template.rstrip("\n") + "\n")


def list_house_models(*, as_json: bool) -> None:
    """Prints the models that have a name."""
    listed: list[dict[str, object]] = []
    for name in HOUSE_MODELS:
        try:
            path = resolve(name)
        except ModelNotFound:
            listed.append({"name": name, "path": None, "file_size": None})
        else:
            listed.append({"name": name, "path": path, "file_size": path.stat().st_size})
    if as_json:
        write_json({"models": listed})
        return
    for entry in listed:
        size = entry["file_size"]
        write_text(f"{entry['name']}  {_bytes(size) if isinstance(size, int) else 'missing'}  {entry['path'] or ''}\n")


def _plan(facts: ModelFacts) -> tuple[ModelPlan | None, str | None]:
    """How the file would be loaded by default, or why this version would not."""
    try:
        return plan_model(ModelConfig(source=facts.path), facts), None
    except (ModelError, InvalidConfiguration) as refusal:
        return None, str(refusal)


def _kv_cache_bytes(plan: ModelPlan) -> int:
    """Bytes of the KV cache: a key and a value in 16-bit floats for each token, layer and K/V head."""
    facts = plan.facts
    values = facts.n_layer * facts.n_head_kv * (facts.n_embd_head_k + facts.n_embd_head_v)
    cells = -(-plan.n_ctx // 256) * 256  # llama.cpp rounds up
    return 2 * values * cells * plan.config.n_seq_max


def _facts_object(facts: ModelFacts, *, with_template: bool) -> dict[str, object]:
    described: dict[str, object] = plain(facts)
    if not with_template:
        described["chat_template"] = facts.chat_template is not None
    plan, refusal = _plan(facts)
    described["served"] = plan is not None
    described["refusal"] = refusal
    described["n_ctx_default"] = None if plan is None else plan.n_ctx
    described["kv_cache_bytes_default"] = None if plan is None else _kv_cache_bytes(plan)
    described["recipe"] = None if plan is None else attrs.asdict(plan.recipe)
    return described


def _facts_lines(facts: ModelFacts) -> list[tuple[str, object]]:
    weights = ", ".join(f"{count} {kind}" for kind, count in sorted(facts.weight_types.items(), key=lambda e: -e[1]))
    plan, refusal = _plan(facts)
    lines: list[tuple[str, object]] = [
        ("name", facts.name),
        ("file", facts.path),
        ("size", f"{_bytes(facts.file_size)} ({facts.file_size} bytes)"),
        ("architecture", facts.architecture),
        ("parameters", f"{_count(facts.parameter_count)} ({facts.parameter_count})"),
        ("weights", f"{facts.dominant_type or 'none'} (tensors: {weights or 'none'})"),
        ("layers", facts.n_layer),
        ("embedding", facts.n_embd),
        ("heads", f"{facts.n_head}, for keys and values {facts.n_head_kv}"),
        ("context", f"{facts.n_ctx_train} tokens in training"),
        ("tokenizer", f"{facts.tokenizer_model or 'none'}, {facts.n_vocab} tokens"),
        ("memory class", facts.memory_class),
        ("chat template", "yes (--chat-template prints it)" if facts.chat_template is not None else "none"),
        ("license", facts.license or "not stated"),
        ("digest", facts.header_digest),
    ]
    if facts.split_count > 1:
        lines.append(("split", f"one of {facts.split_count} files"))
    if plan is None:
        lines.append(("recipe", f"not served: {refusal}"))
        return lines
    sizes = f"{plan.config.n_seq_max} sequences of {plan.n_ctx} tokens"
    lines.append(("KV cache", f"{_bytes(_kv_cache_bytes(plan))} for {sizes}, the default"))
    recipe = plan.recipe
    cap = f"at most {recipe.decode_row_cap}" if recipe.decode_row_cap is not None else "no cap on"
    lines.append(
        ("recipe", f"{recipe.name}: prompt chunks of {recipe.minimum_chunk} tokens or more, {cap} decode rows a call, "
        f"{plan.n_ctx} tokens of context by default")
    )  # fmt: skip
    return lines


def _bytes(size: int) -> str:
    value, units = float(size), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def _count(number: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)

"""What decides the bits of a model's KV cells beside the tokens."""

from __future__ import annotations

import attrs

from paddock.cache.keys import Identity
from paddock.engine.batching.recipes import Recipe
from paddock.engine.worker.protocol import Load, Loaded

__all__ = ["identity_of"]

_NO_BITS = frozenset({"n_threads", "n_threads_batch", "n_batch", "n_ubatch", "n_ctx"})
"""Settings of a context that change no bit under an exact recipe; ``n_ctx`` is taken as the worker reports it, and the
number of threads counts where the certificate says that it matters, or where there is no certificate."""


def identity_of(fingerprint: str, load: Load, loaded: Loaded, recipe: Recipe) -> Identity:
    """The identity of a loaded model, whose file has this fingerprint."""
    context = {key: value for key, value in load.context.items() if key not in _NO_BITS}
    context |= {f"model.{key}": value for key, value in load.model.items()}
    context["n_ctx"] = loaded.n_ctx
    certificate = loaded.certificate
    if certificate is None or certificate.threads_matter:
        context["n_threads"] = load.context.get("n_threads")
    if certificate is not None:  # kernels are chosen by variables of the environment, too
        context |= {name: value for name, value in certificate.parameters.items() if name.isupper()}
    return Identity(
        model=fingerprint,
        build=loaded.build,
        context=_text(context),
        recipe=_text(attrs.asdict(recipe)),
        block_tokens=load.block_tokens,
        payload_bytes=loaded.block_bytes,
    )


def _text(settings: dict[str, object]) -> str:
    return " ".join(f"{name}={settings[name]!r}" for name in sorted(settings))

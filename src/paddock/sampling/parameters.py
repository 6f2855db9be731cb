"""What a caller may ask of the sampler: validated on construction, honoured or refused, never rewritten.

The samplers, their order and their defaults are those of llama.cpp (``common_params_sampling`` of the pinned
version); where a parameter differs, its entry in :data:`PARAMETERS` says how.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import attrs

from paddock.errors import InvalidParameter
from paddock.sampling.grammars import GRAMMAR_PARAMETERS, Grammar, GrammarText, JsonSchema
from paddock.sampling.ranges import MAX_TOKEN_ID, Flag, Integer, Number, Texts, TokenIds
from paddock.sampling.seeds import MAX_SEED, resolve_seed

__all__ = ["PARAMETERS", "SAMPLERS", "ParameterInfo", "SamplingParameters", "validate_for_vocabulary"]

SAMPLERS = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
"""llama.cpp's default order. adaptive-p and mirostat draw the token and so always stand last."""

MAX_LOGIT_BIAS = 1e4
MAX_BIASED_TOKENS = 65_536

_RANGES: dict[str, Number | Integer | Flag | Texts | TokenIds | GrammarText | JsonSchema] = {
    "temperature": Number(1e-5, 100.0, off=(0.0,)),
    "top_k": Integer(0, MAX_TOKEN_ID),
    "top_p": Number(0.0, 1.0),
    "min_p": Number(0.0, 1.0),
    "typical_p": Number(0.0, 1.0, above=True),
    "top_n_sigma": Number(0.0, 1000.0, off=(-1.0,), above=True),
    "min_keep": Integer(0, MAX_TOKEN_ID),
    "xtc_probability": Number(0.0, 1.0),
    "xtc_threshold": Number(0.0, 1.0),
    "dry_multiplier": Number(0.0, 100.0),
    "dry_base": Number(1.0, 100.0),
    "dry_allowed_length": Integer(0, 1_000_000),
    "dry_last_n": Integer(-1, MAX_TOKEN_ID),
    "dry_sequence_breakers": Texts(most=64, longest=40, in_bytes=True),
    "repeat_last_n": Integer(-1, MAX_TOKEN_ID),
    "repeat_penalty": Number(0.01, 100.0),
    "frequency_penalty": Number(-100.0, 100.0),
    "presence_penalty": Number(-100.0, 100.0),
    "mirostat": Integer(2, 2, off=(0,)),
    "mirostat_tau": Number(0.0, 100.0),
    "mirostat_eta": Number(0.0, 1.0),
    "adaptive_target": Number(0.0, 1.0, off=(-1.0,)),
    "adaptive_decay": Number(0.0, 0.99),
    "seed": Integer(0, MAX_SEED, optional=True),
    "ignore_eos": Flag(),
    "min_tokens": Integer(0, MAX_TOKEN_ID),
    "max_tokens": Integer(1, MAX_TOKEN_ID, optional=True),
    "stop": Texts(most=64, longest=1024),
    "stop_token_ids": TokenIds(most=1024),
    "logprobs": Integer(0, 20, optional=True),
    "json_schema": JsonSchema(),
    "regex": GrammarText("a regular expression"),
    "grammar": GrammarText("a grammar in llguidance's Lark syntax"),
}

_BIAS_ALLOWED = (
    f"token id -> bias in [-{MAX_LOGIT_BIAS:g}, {MAX_LOGIT_BIAS:g}] or -inf (never), "
    f"at most {MAX_BIASED_TOKENS} token ids of the model's vocabulary"
)
_ORDER_ALLOWED = f"some of {', '.join(SAMPLERS)}, each at most once"


def _in_range(value: object, _: SamplingParameters, attribute: attrs.Attribute[Any]) -> Any:
    return _RANGES[attribute.name].accept(attribute.name, value)


def _range(default: Any) -> Any:
    """A field whose range stands in ``_RANGES`` under its own name."""
    return attrs.field(
        default=default,
        converter=attrs.Converter(_in_range, takes_self=True, takes_field=True),  # type: ignore[call-overload]
    )


def _logit_bias(value: object) -> tuple[tuple[int, float], ...]:
    pairs = value.items() if isinstance(value, Mapping) else value
    if not isinstance(pairs, tuple | list) and not isinstance(value, Mapping):
        raise InvalidParameter("logit_bias", value, _BIAS_ALLOWED)
    biases: dict[int, float] = {}
    number = Number(-MAX_LOGIT_BIAS, MAX_LOGIT_BIAS, off=(float("-inf"),))
    for pair in pairs:  # type: ignore[attr-defined]
        if not isinstance(pair, tuple | list) or len(pair) != 2 or len(biases) >= MAX_BIASED_TOKENS:
            raise InvalidParameter("logit_bias", value, _BIAS_ALLOWED)
        token, bias = pair
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token <= MAX_TOKEN_ID:
            raise InvalidParameter("logit_bias", token, _BIAS_ALLOWED)
        if token in biases:
            raise InvalidParameter("logit_bias", value, f"{_BIAS_ALLOWED}; token {token} is given twice")
        try:
            biases[int(token)] = number.accept("logit_bias", bias)
        except InvalidParameter:
            raise InvalidParameter("logit_bias", bias, _BIAS_ALLOWED) from None
    return tuple(sorted(biases.items()))


def _sampler_order(value: object) -> tuple[str, ...]:
    if (
        not isinstance(value, tuple | list)
        or any(name not in SAMPLERS for name in value)
        or len(set(value)) != len(value)
    ):
        raise InvalidParameter("sampler_order", value, _ORDER_ALLOWED)
    return tuple(value)


@attrs.frozen(kw_only=True)
class SamplingParameters:
    """How the tokens of one completion are drawn and when it ends. Ranges and meanings: :data:`PARAMETERS`.

    Raises :class:`paddock.errors.InvalidParameter` naming the parameter for any value outside its range.
    """

    temperature: float = _range(0.8)
    top_k: int = _range(40)
    top_p: float = _range(0.95)
    min_p: float = _range(0.05)
    typical_p: float = _range(1.0)
    top_n_sigma: float = _range(-1.0)
    min_keep: int = _range(0)
    xtc_probability: float = _range(0.0)
    xtc_threshold: float = _range(0.1)
    dry_multiplier: float = _range(0.0)
    dry_base: float = _range(1.75)
    dry_allowed_length: int = _range(2)
    dry_last_n: int = _range(-1)
    dry_sequence_breakers: tuple[str, ...] = _range(("\n", ":", '"', "*"))
    repeat_last_n: int = _range(64)
    repeat_penalty: float = _range(1.0)
    frequency_penalty: float = _range(0.0)
    presence_penalty: float = _range(0.0)
    mirostat: int = _range(0)
    mirostat_tau: float = _range(5.0)
    mirostat_eta: float = _range(0.1)
    adaptive_target: float = _range(-1.0)
    adaptive_decay: float = _range(0.9)
    logit_bias: tuple[tuple[int, float], ...] = attrs.field(default=(), converter=_logit_bias)
    seed: int | None = _range(None)
    ignore_eos: bool = _range(False)
    min_tokens: int = _range(0)
    max_tokens: int | None = _range(None)
    stop: tuple[str, ...] = _range(())
    stop_token_ids: tuple[int, ...] = _range(())
    sampler_order: tuple[str, ...] = attrs.field(default=SAMPLERS, converter=_sampler_order)
    logprobs: int | None = _range(None)
    json_schema: str | None = _range(None)
    regex: str | None = _range(None)
    grammar: str | None = _range(None)

    def __attrs_post_init__(self) -> None:
        """Refuses combinations in which a parameter that was asked for would have no effect."""
        if self.mirostat:
            without_effect = {
                "typical_p": self.typical_p != 1.0,
                "top_n_sigma": self.top_n_sigma != -1.0,
                "xtc_probability": self.xtc_probability != 0.0,
                "adaptive_target": self.adaptive_target != -1.0,
            }
            for name, asked in without_effect.items():
                if asked:
                    raise InvalidParameter(
                        name, getattr(self, name), "its default while mirostat, which replaces it, is on"
                    )
        needed = {
            "penalties": self.penalizes,
            "dry": self.dry_multiplier != 0.0,
            "top_n_sigma": self.top_n_sigma != -1.0,
            "typical_p": self.typical_p != 1.0,
            "xtc": self.xtc_probability != 0.0,
        }
        for name, asked in needed.items():
            if asked and name not in self.sampler_order:
                raise InvalidParameter(
                    "sampler_order", self.sampler_order, f"an order with {name!r}, whose parameters are set"
                )
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidParameter("min_tokens", self.min_tokens, f"at most max_tokens={self.max_tokens}")
        given = [name for name in GRAMMAR_PARAMETERS if getattr(self, name) is not None]
        if len(given) > 1:
            raise InvalidParameter(given[1], getattr(self, given[1]), f"None while {given[0]} is set")
        if given and self.ignore_eos:
            raise InvalidParameter("ignore_eos", True, f"False while {given[0]} is set, which says where a reply ends")

    @property
    def constraint(self) -> Grammar | None:
        """The grammar that the reply must match, given as ``json_schema``, ``regex`` or ``grammar``."""
        for name in GRAMMAR_PARAMETERS:
            if (text := getattr(self, name)) is not None:
                return Grammar(name, text)
        return None

    @property
    def penalizes(self) -> bool:
        """Whether any of repeat, frequency and presence penalty has an effect."""
        return self.repeat_last_n != 0 and (
            self.repeat_penalty != 1.0 or self.frequency_penalty != 0.0 or self.presence_penalty != 0.0
        )

    def resolved(self) -> SamplingParameters:
        """The same parameters with a concrete seed: an absent one is drawn here, once, at admission."""
        return self if self.seed is not None else attrs.evolve(self, seed=resolve_seed(None))

    def to_mapping(self) -> dict[str, object]:
        """Every field by name; ``from_mapping`` reads it back."""
        return {field.name: getattr(self, field.name) for field in attrs.fields(SamplingParameters)}

    @classmethod
    def from_mapping(cls, parameters: Mapping[str, object]) -> SamplingParameters:
        """Builds parameters from outside data; an unknown name is refused with the nearest known one."""
        for name in parameters:
            if name not in _NAMES:
                near = difflib.get_close_matches(str(name), _NAMES, n=1)
                hint = f"no such parameter; did you mean {near[0]!r}?" if near else "no such parameter"
                raise InvalidParameter(str(name), parameters[name], hint)
        return cls(**parameters)  # type: ignore[arg-type]


_NAMES = tuple(field.name for field in attrs.fields(SamplingParameters))


def validate_for_vocabulary(parameters: SamplingParameters, n_vocab: int) -> None:
    """Checks the token ids in ``logit_bias`` and ``stop_token_ids`` against a vocabulary of ``n_vocab``
    tokens.

    Raises :class:`paddock.errors.InvalidParameter`.
    """
    for token, _ in parameters.logit_bias:
        if token >= n_vocab:
            raise InvalidParameter("logit_bias", token, f"a token id below {n_vocab}")
    for token in parameters.stop_token_ids:
        if token >= n_vocab:
            raise InvalidParameter("stop_token_ids", token, f"a token id below {n_vocab}")
    banned = sum(1 for _, bias in parameters.logit_bias if bias == float("-inf"))
    if banned >= n_vocab:
        raise InvalidParameter("logit_bias", parameters.logit_bias, "at least one token that is not banned")


@attrs.frozen
class ParameterInfo:
    """One row of the parameter table: the name, its type and default, what is allowed, what it means."""

    name: str
    type: str
    default: object
    range: str
    meaning: str


_MEANINGS = {
    "temperature": "Divides the logits; 0 is greedy: the token with the highest logit after biases and "
    "penalties (and after typical_p and xtc where these are on, since they may remove it).",
    "top_k": "Keeps the k most probable tokens; 0 is off.",
    "top_p": "Keeps the most probable tokens whose probabilities sum to p; 1 is off.",
    "min_p": "Keeps tokens of at least min_p times the highest probability; 0 is off.",
    "typical_p": "Keeps tokens whose surprise is nearest to the entropy until p is reached; 1 is off.",
    "top_n_sigma": "Keeps tokens within n standard deviations of the highest logit; -1 is off.",
    "min_keep": "top_p, min_p, typical_p and xtc leave at least so many tokens; 0 is llama.cpp's default.",
    "xtc_probability": "Chance per draw that all tokens above the threshold but the last are removed; 0: off.",
    "xtc_threshold": "The probability above which xtc removes; above 0.5 it never acts.",
    "dry_multiplier": "Strength of DRY: multiplier * base ** (repeated tokens - allowed_length); 0 is off.",
    "dry_base": "The base of DRY's penalty.",
    "dry_allowed_length": "Repetitions up to this length cost nothing.",
    "dry_last_n": "How many tokens DRY looks back; -1 is the whole context, 0 is off.",
    "dry_sequence_breakers": "Strings across which no repetition counts.",
    "repeat_last_n": "How many tokens the penalties look back, prompt included; -1 is the whole context.",
    "repeat_penalty": "Divides positive and multiplies negative logits of tokens seen; 1 is off.",
    "frequency_penalty": "Subtracted from a token's logit for each time it was seen; 0 is off.",
    "presence_penalty": "Subtracted from the logit of every token seen; 0 is off.",
    "mirostat": "2 is mirostat v2, in the place of top_k, top_p, min_p and the other truncations; 0 is off.",
    "mirostat_tau": "The surprise, in bits, that mirostat aims at.",
    "mirostat_eta": "Mirostat's learning rate.",
    "adaptive_target": "Adaptive-p, in the place of the plain draw, prefers this probability; -1 is off.",
    "adaptive_decay": "How slowly adaptive-p forgets: about 1 / (1 - decay) tokens.",
    "logit_bias": "Added to the raw logits of these tokens; -inf bans a token.",
    "seed": "All draws follow from it; where absent, it is drawn once, when the request is made, and reported.",
    "ignore_eos": "End-of-generation tokens are never drawn.",
    "min_tokens": "End-of-generation tokens and stop_token_ids are not drawn before so many tokens, "
    "unless a grammar allows nothing else.",
    "max_tokens": "The completion ends after so many tokens; None is up to the end of the context.",
    "stop": "The completion ends before the first of these strings.",
    "stop_token_ids": "The completion ends at the first of these tokens.",
    "sampler_order": "The order of the samplers, llama.cpp's by default; one left out is off.",
    "logprobs": "Reports the token's log-probability and so many alternatives, from the raw logits.",
    "json_schema": "The reply is JSON that matches this schema. One of json_schema, regex and grammar at most.",
    "regex": "The whole reply matches this regular expression (Rust's syntax, no look-around, no back-references).",
    "grammar": "The whole reply matches this grammar.",
}


def _describe(field: attrs.Attribute[Any]) -> ParameterInfo:
    special = {"logit_bias": _BIAS_ALLOWED, "sampler_order": _ORDER_ALLOWED}
    allowed = special[field.name] if field.name in special else _RANGES[field.name].allowed
    return ParameterInfo(field.name, str(field.type), field.default, allowed, _MEANINGS[field.name])


PARAMETERS: tuple[ParameterInfo, ...] = tuple(_describe(field) for field in attrs.fields(SamplingParameters))
"""The documented range of every parameter; the docs are made from it."""

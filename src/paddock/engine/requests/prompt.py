"""What a request needs before it can be admitted, in one-shot processes of its own: token ids, keys, a grammar."""

from __future__ import annotations

import math
from typing import Any

import trio

import supervisors as sup
from paddock.engine.caching.prefix import ChainRules, chain_of
from paddock.engine.requests.messages import GrammarReady, Tokenized, UseWorker
from paddock.engine.worker.messages import CompileGrammar, TokenizeText
from paddock.errors import PaddockError, WorkerBusy, WorkerDied
from paddock.sampling.grammars import Grammar
from paddock.telemetry.discretion import discreet

__all__ = ["compile_grammar", "name_blocks", "tokenize_prompt"]

_BUSY_SECONDS = 0.05

_KEYS_AT_ONCE = 200
"""About half a millisecond of hashing."""


@discreet
async def compile_grammar(owner: sup.Pid[Any], worker: UseWorker, grammar: Grammar) -> None:
    """Body of a one-shot process. Without its worker the machine is recovering, and sends UseWorker again."""
    try:
        await sup.call(worker.port, CompileGrammar(grammar), timeout=math.inf)
    except (WorkerDied, sup.NoProc, sup.ServerExited):
        return
    except PaddockError as error:
        sup.cast(owner, GrammarReady(worker, error))
    else:
        sup.cast(owner, GrammarReady(worker))


@discreet
async def tokenize_prompt(
    owner: sup.Pid[Any], port: sup.Pid[Any], request: TokenizeText, rules: ChainRules | None, tenant: str
) -> None:
    """Body of a one-shot process; ends with its request, so with its cancel and its deadline."""
    try:
        tokens = await _tokens_of(port, request)
    except PaddockError as error:
        sup.cast(owner, Tokenized(None, error))
    except (sup.NoProc, sup.ServerExited):
        sup.cast(owner, Tokenized(None, None))
    else:
        await name_blocks(owner, tokens, None, rules, tenant)


@discreet
async def name_blocks(
    owner: sup.Pid[Any], tokens: list[int], generated: bytes | None, rules: ChainRules | None, tenant: str
) -> None:
    """Hashes the keys of a prompt's blocks. A long prompt takes several turns of the event loop."""
    chain = None
    # Ids that no model has are refused by the actor; a chain has only room for 32 bits.
    if rules is not None and tokens and min(tokens) >= 0 and max(tokens) < 1 << 31:
        chain = chain_of(rules, tokens, generated, tenant=tenant)
        while chain.hash_some(_KEYS_AT_ONCE):
            await trio.lowlevel.checkpoint()
    sup.cast(owner, Tokenized(tokens, None, chain))


async def _tokens_of(port: sup.Pid[Any], request: TokenizeText) -> list[int]:
    """Tries again while the worker has too many texts waiting: a request that has its place in the queue keeps it."""
    while True:
        try:
            tokens: list[int] = await sup.call(port, request, timeout=math.inf)
        except WorkerBusy:
            await trio.sleep(_BUSY_SECONDS)
        else:
            return tokens

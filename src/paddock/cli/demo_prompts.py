"""How the streams of the demo begin: openings of stories, which the house model was trained to go on with."""

from __future__ import annotations

__all__ = ["demo_prompts"]

_OPENINGS = (
    "Once upon a time, there was a little llama named Pia.",
    "Long ago, a brave mouse lived in an old barn.",
    "One day, a curious fox found a golden key.",
    "There was once a shy owl who lived near the sea.",
    "Once upon a time, in a green valley, a young bear named Otto lived by the river.",
    "Lulu was a funny duck. She lived near a blue lake.",
    "Many years ago, a clever goat named Milo lived on a high mountain.",
    "One night, a big storm came. Nina the hedgehog was afraid.",
)


def demo_prompts(count: int) -> list[str]:
    """``count`` prompts; where there are more streams than openings they come again, to be told apart by the seed."""
    return [_OPENINGS[index % len(_OPENINGS)] for index in range(count)]

"""A plain script: one model, a prompt from the command line, the reply as it is written.

python examples/script.py "Tell me a story about a fox named Nora."
"""

from __future__ import annotations

import argparse
import sys

import paddock
import paddock.blocking


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ask a local model.")
    parser.add_argument("question", nargs="+")
    parser.add_argument("--model", default="cria", help="a model name or the path of a GGUF file")
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args(arguments)
    messages = [{"role": "user", "content": " ".join(options.question)}]
    try:
        with paddock.blocking.open_runtime() as runtime:
            model = runtime.load_model(options.model)
            with model.stream_chat(messages, max_tokens=options.max_tokens, seed=options.seed) as request:
                for delta in request:
                    print(delta.text, end="", flush=True)
                completion = request.result()
            print()
    except paddock.PaddockError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{completion.usage.completion_tokens} tokens, seed {completion.seed}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

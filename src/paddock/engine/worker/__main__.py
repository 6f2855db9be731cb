"""``python -m paddock.engine.worker FD``: see ``child.py``."""

from paddock.engine.worker.child import main

main()

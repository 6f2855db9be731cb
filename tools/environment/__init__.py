"""How the project's virtual environment is made; started by ``tools/setup_environment.py``."""

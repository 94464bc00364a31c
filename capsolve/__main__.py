"""``python -m capsolve`` is the command line."""

from capsolve.cli import main

if __name__ == "__main__":
    main(prog_name="capsolve")

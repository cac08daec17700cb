"""``python -m lib.hubness``."""

from lib.hubness._cli import main

if __name__ == "__main__":
    raise SystemExit(main())

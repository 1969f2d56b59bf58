"""`python -m diffsweep COMMAND`, where the script `diffsweep` is not on the path."""

from diffsweep.commands import main

if __name__ == "__main__":
    raise SystemExit(main())

"""``python -m moeprof``, the same as the console script."""

from moeprof.cli.main import main

if __name__ == "__main__":
    main()

"""`python -m dueto` is `dueto`."""

from dueto.app.cli import main

if __name__ == "__main__":
    main()

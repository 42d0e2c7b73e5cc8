"""`python -m signaling.cli`."""

from signaling.cli.main import main

if __name__ == "__main__":
    main(prog_name="voiceforge")

"""Small programs that run: `python -m tracegrad.examples.NAME --help`."""

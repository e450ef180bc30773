"""The command line: one file per command. It shows and asks; everything it computes happens in the runtime."""

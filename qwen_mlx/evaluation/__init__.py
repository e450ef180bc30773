"""Numbers about models: how fast, and later how good."""

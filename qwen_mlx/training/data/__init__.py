"""From files of conversations and texts to batches of token ids. numpy only: nothing here imports MLX."""

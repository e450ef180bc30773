"""Fine-tuning: data, batches, losses, the loop and its checkpoints. The CLI and the app read its events."""

"""Training as the app shows it; no widget in here, and no MLX."""

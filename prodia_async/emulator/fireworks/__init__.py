"""The Fireworks image API."""

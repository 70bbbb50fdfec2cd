"""The Prodia v2 inference API."""

"""Run image and video generation jobs on the Prodia v2 inference API."""

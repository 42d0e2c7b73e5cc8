"""Samples to utterances: denoising, voice activity, endpoints, on the stream's own clock."""

"""Recordings: files to transcripts, through the same engine as live speech."""

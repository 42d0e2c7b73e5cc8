"""What `voiceforge doctor` looks at: one file a subject, each check a coroutine that returns a `Finding`."""

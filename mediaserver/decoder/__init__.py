"""Windows of all sessions to hypotheses, and hypotheses to words that do not change."""

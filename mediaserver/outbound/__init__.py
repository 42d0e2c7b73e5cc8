"""Requests that this server makes to addresses that its clients name: fetched recordings, webhooks."""

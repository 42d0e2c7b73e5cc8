"""What is kept of a tenant, for how long, and how it is deleted so that this can be shown."""

"""What the server's HTTP and WebSockets take and give, described beside the handlers and written out as documents."""

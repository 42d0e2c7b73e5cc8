"""Who a request is from, and what it may do: keys, tokens, and the guard before every handler."""

"""What can be seen from outside: the access log and counters."""

"""The command line: one module per command. It parses, calls one function of a room, and shows the result."""

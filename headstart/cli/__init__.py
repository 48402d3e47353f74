"""The command line: one module per command, which parses its options, calls one function of a room and shows the result."""

"""The avatar: in memory, as a folder, in files of other tools, and the statement that it is synthetic."""

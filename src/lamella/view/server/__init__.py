"""The viewer: a Starlette application that shows slides, layers, runs and scans. Needs the extra `view`."""

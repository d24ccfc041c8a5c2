"""The viewer: a Starlette application that shows slides, layers, runs and scans in a browser. Needs the extra `view`."""

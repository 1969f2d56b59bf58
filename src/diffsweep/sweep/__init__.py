"""The sweep engine, without torch: store < plan < status < execute < search, each folder uses only those before it."""

"""Workers that time one engine each, in the environment that the engine needs."""
